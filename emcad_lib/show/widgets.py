"""Sliders and menus over the pictures of `emcad_lib.show.plots`.

A widget is a pure function that draws, plus a control for each of its arguments. Nothing else happens here, so whatever
a widget can show, a cell can draw without one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from emcad_lib.data.labels import REGIONS
from emcad_lib.data.planes import PLANES, recut
from emcad_lib.show import plots

WINDOWS = ((-2.5, 4.0), (-1.0, 2.0), (0.0, 6.0))  # z-scores shown as black and as white


def interactive(render: Callable[..., Figure], alt: str, **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """A picture that is drawn anew whenever one of its controls moves.

    Args:
        render: draws the figure from one keyword argument for each control.
        alt: what the picture shows, for those who can't see it.
        controls: ipywidgets, by the name of the argument that each sets.

    Returns:
        the controls above the picture. An error in ``render`` is shown in place of a message, not swallowed.
    """
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "margin": "0", "align_self": "flex-start"})
    picture.add_class("emcad-picture")
    message = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        try:
            figure = render(**{name: control.value for name, control in controls.items()})
        except Exception as error:
            message.value = f"<b>{type(error).__name__}:</b> {escape(str(error))}"
            raise
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        picture.value = buffer.getvalue()
        message.value = f"<small>{escape(alt)}</small>"

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.VBox(list(controls.values())), picture, message])


def slider(label: str, low: int, high: int, value: int, step: int = 1) -> ipywidgets.IntSlider:
    """A slider over whole numbers, that the arrow keys move too."""
    return ipywidgets.IntSlider(value, low, high, step, description=label, continuous_update=False, **_WIDE)


def choice(label: str, options: Sequence[Any] | Mapping[str, Any], value: Any = None) -> ipywidgets.Dropdown:
    """A menu. ``options``: values, or values by the names to show.

    By keyboard: Space opens it, arrows choose, Enter takes. While it's closed, JupyterLab takes the keys for its own.
    """
    pairs = list(options.items()) if isinstance(options, Mapping) else [(str(option), option) for option in options]
    return ipywidgets.Dropdown(options=pairs, value=pairs[0][1] if value is None else value, description=label, **_WIDE)


_WIDE: dict[str, Any] = {"style": {"description_width": "10em"}, "layout": {"width": "32em"}}


def explore_slices(images: np.ndarray, regions: np.ndarray, modalities: Sequence[str]) -> ipywidgets.VBox:
    """Go through a patient's slices in all three planes, modality by modality, with and without the outline.

    Args:
        images: (S, C, H, W), z-scores of axial slices, in voxels as large in each direction.
        regions: (S, H, W), region bits.
        modalities: the names of the C modalities.
    """

    def render(modality: str, cut: str, number: int, outline: Sequence[str], window: tuple[float, float]) -> Figure:
        shown, bits = recut(images[:, modalities.index(modality)], cut), recut(regions, cut)
        number = min(number, len(shown) - 1)  # a plane that has fewer slices is drawn before its slider has moved
        title = f"{plots.MODALITY_NAMES[modality]}, {cut} slice {number} of {len(shown) - 1}"
        return plots.slice_view(shown[number], bits[number], title, window, outline)

    def richest(cut: str) -> int:
        return int((recut(regions, cut) > 0).sum(axis=(1, 2)).argmax())

    def move_slider(change: Mapping[str, Any]) -> None:
        number.max = len(recut(regions, change["new"])) - 1
        number.value = richest(change["new"])

    plane = choice("plane", PLANES)
    number = slider("slice", 0, len(images) - 1, richest(plane.value))
    plane.observe(move_slider, names="value")
    return interactive(
        render,
        alt="One slice of the patient in the chosen plane, with the outlines of the chosen tumour regions.",
        modality=choice("modality", {plots.MODALITY_NAMES[name]: name for name in modalities}),
        cut=plane,
        number=number,
        outline=choice("outline", {"all regions": REGIONS, "whole tumour": ("whole",), "none": ()}),
        window=choice("window, z-scores", {f"{low:g} to {high:g}": (low, high) for low, high in WINDOWS}),
    )
