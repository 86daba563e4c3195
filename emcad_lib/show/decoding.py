"""Pictures of the decoder at work on a slice: what its gates let through, how features grow, how the mask sharpens.

Pure functions: arrays in, a Figure out. A slice and a tumour mask are (H, W); a map of features is (h, w), on a grid
that may be coarser, and is stretched over the slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from emcad_lib.show import plots
from emcad_lib.show.looks import OUTLINES, draw_outline, draw_patient

Array = NDArray[Any]
FLAIR = "FLAIR and tumour"  # above the slice


def gate_at_work(image: Array, tumour: Array, asked: Array, opening: Array, offered: Array, title: str = "") -> Figure:
    """One gate on one slice: what asks, how far it opens, what is offered and what of it passes.

    Args:
        image: the slice (H, W), z-scores.
        tumour: its mask (H, W), whose outline lies on every picture.
        asked: how strong g is at each place (h, w).
        opening: of the gate (h, w), from 0 to 1.
        offered: what of x arrives at each place (h, w), 0 or more. What passes is the opening times this.
        title: above all.
    """
    figure, axes = plots.new_figure(14, 3, 1, 5)
    most = float(offered.max()) or 1.0
    draw_patient(axes[0, 0], image, tumour, FLAIR)
    for place, values, name, label, limits in (
        (axes[0, 1], asked, "g: how strong it asks", "length of g", None),
        (axes[0, 2], opening, "the gate", "opening", (0, 1)),
        (axes[0, 3], offered, "offered: edges in x", "change of x", (0, most)),
        (axes[0, 4], opening * offered, "what passes", "opening x change", (0, most)),
    ):
        colours = "viridis" if values is opening else "gray"
        plots.draw_map(figure, place, values, tumour.shape, name, label, limits, colours)
        draw_outline(place, tumour, OUTLINES.get(colours, "white"))
    figure.suptitle(title)
    return figure


def gates_compared(
    image: Array, tumour: Array, networks: Mapping[str, Mapping[int, tuple[Array, Array]]], title: str = ""
) -> Figure:
    """All gates of some networks on one slice: a row for each network, two pictures for each stage.

    Args:
        image: the slice (H, W), z-scores.
        tumour: its mask (H, W).
        networks: by the network's name and the stage, the gate's opening (h, w) and what is offered to it (h, w).
        title: above all.
    """
    stages = list(next(iter(networks.values())))
    figure, axes = plots.new_figure(14, 2.2 * len(networks) + 0.4, len(networks), 1 + 2 * len(stages))
    for row, (name, gates) in zip(axes, networks.items(), strict=True):
        draw_patient(row[0], image, tumour, title=name)
        for number, stage in enumerate(stages):
            opening, offered = gates[stage]
            most = float(offered.max()) or 1.0
            picture = _draw(row[1 + 2 * number], opening, tumour, f"stage {stage}: opening", 1.0, "viridis")
            _draw(row[2 + 2 * number], opening * offered, tumour, f"stage {stage}: passes", most, "gray")
    figure.colorbar(picture, ax=axes[:, -1].tolist(), label="opening", shrink=0.8)
    figure.suptitle(title)
    return figure


def doubled(
    image: Array, tumour: Array, before: Array, after: Array, constant: Array, way: str, title: str = ""
) -> Figure:
    """One channel of features before and after its size is doubled, and the pattern that this way leaves by itself.

    Args:
        image: the slice (H, W), z-scores.
        tumour: its mask (H, W).
        before: a channel of features (h, w).
        after: the same (2h, 2w).
        constant: what the same way makes of a constant 1, away from the border (n, n). From -4 to 4, as a kernel
            whose weights have 1 as the sum of their sizes gives at most 4 when it is a stamp.
        way: its name.
        title: above all.
    """
    figure, axes = plots.new_figure(13, 3.8, 1, 4)
    draw_patient(axes[0, 0], image, tumour, FLAIR)
    for place, values, name in ((axes[0, 1], before, "before"), (axes[0, 2], after, f"after: {way}")):
        size = " x ".join(str(side) for side in values.shape)
        plots.draw_map(figure, place, values, tumour.shape, f"{name}\n{size} places", "feature", colours="gray")
        draw_outline(place, tumour, OUTLINES["gray"])
    plots.draw_map(figure, axes[0, 3], constant, title="what it makes\nof a constant 1", label="value", limits=(-4, 4))
    figure.suptitle(title)
    return figure


def four_heads(
    image: Array, tumour: Array, probabilities: Mapping[str, Array], head: str, threshold: float, title: str = ""
) -> Figure:
    """The maps of all heads, with the tumour's outline in white and the prediction's in orange.

    Args:
        image: the slice (H, W), z-scores.
        tumour: its mask (H, W).
        probabilities: of tumour (H, W), by the head's name.
        head: whose outline lies on the slice too.
        threshold: from which probability on a pixel counts as tumour.
        title: above all.
    """
    figure, axes = plots.new_figure(13, 3, 1, 1 + len(probabilities))
    plots.draw_slice(axes[0, 0], image, title=f"FLAIR and {head}")
    draw_outline(axes[0, 0], tumour, "white", centre=0)
    draw_outline(axes[0, 0], probabilities[head] > threshold, plots.COLOURS["orange"], centre=0)
    for place, (name, probability) in zip(axes[0, 1:], probabilities.items(), strict=True):
        picture = _draw(place, probability, tumour, name, 1.0, "viridis")
        draw_outline(place, probability > threshold, plots.COLOURS["orange"])
    figure.colorbar(picture, ax=axes[0].tolist(), label="probability", shrink=0.8)
    figure.suptitle(title)
    return figure


def _draw(axes: Axes, values: Array, tumour: Array, title: str, most: float, colours: str) -> AxesImage:
    """A map from 0 to ``most`` without a colour bar of its own."""
    height, width = tumour.shape
    picture = axes.imshow(
        values, cmap=colours, vmin=0, vmax=most, extent=(0, width, height, 0), interpolation="nearest"
    )
    draw_outline(axes, tumour, OUTLINES.get(colours, "white"))
    axes.set_title(title, fontsize="medium")
    axes.set_axis_off()
    return picture
