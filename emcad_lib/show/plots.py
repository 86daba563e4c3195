"""Pictures of slices, features and curves. Pure functions: arrays in, a Figure out; nothing is shown or stored.

Slices have rows from front to back and columns from the patient's right to left, as radiologists view them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from emcad_lib.data.labels import REGIONS, region_mask

# Okabe and Ito's colours, which people with any common colour blindness can tell apart.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
CYCLE = [COLOURS[name] for name in ("blue", "orange", "green", "red", "purple", "sky", "black")]
REGION_COLOURS = {"whole": COLOURS["sky"], "core": COLOURS["orange"], "enhancing": COLOURS["red"]}
REGION_NAMES = {"whole": "whole tumour", "core": "tumour core", "enhancing": "enhancing tumour"}
MODALITY_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}


def new_figure(width: float = 9, height: float = 4, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` x ``height`` inches and its axes, shape (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_slice(
    axes: Axes,
    image: np.ndarray,
    regions: np.ndarray | None = None,
    title: str = "",
    window: tuple[float, float] = (-2.5, 4.0),
    outline: Sequence[str] = REGIONS,
) -> None:
    """Draw one slice in grey, with the tumour regions as contours.

    Args:
        axes: to draw on.
        image: (H, W), z-scores.
        regions: (H, W) region bits, or None.
        title: above the slice.
        window: the z-scores shown as black and as white.
        outline: which regions to draw.
    """
    shown = np.where(image == 0, window[0], image)  # outside the brain: black, as people are used to
    axes.imshow(shown, cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")
    for region in outline if regions is not None else ():
        mask = region_mask(np.asarray(regions), region)
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[REGION_COLOURS[region]], linewidths=1.2)
    axes.set_title(title)
    axes.set_axis_off()


def slice_view(
    image: np.ndarray,
    regions: np.ndarray | None = None,
    title: str = "",
    window: tuple[float, float] = (-2.5, 4.0),
    outline: Sequence[str] = REGIONS,
) -> Figure:
    """One slice, with contours of the tumour regions and their legend. Arguments as for `draw_slice`."""
    figure, axes = new_figure(5, 5.4)
    draw_slice(axes[0, 0], image, regions, title, window, outline)
    if regions is not None:
        region_legend(figure, outline)
    return figure


def slices(
    images: Mapping[str, np.ndarray],
    regions: np.ndarray | None = None,
    title: str = "",
    window: tuple[float, float] = (-2.5, 4.0),
    outline: Sequence[str] = REGIONS,
    columns: int = 4,
) -> Figure:
    """Several slices of one size side by side, each (H, W) under its title, with the same contours on each."""
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    height, width = next(iter(images.values())).shape
    figure, axes = new_figure(2.6 * columns, 2.6 * rows * height / width + 0.8, rows, columns)
    for place, (name, image) in zip(axes.flat, images.items(), strict=False):
        draw_slice(place, image, regions, name, window, outline)
    for place in axes.flat[len(images) :]:
        place.set_axis_off()
    if regions is not None:
        region_legend(figure, outline)
    figure.suptitle(title)
    return figure


def region_legend(figure: Figure, outline: Sequence[str] = REGIONS) -> None:
    """A legend of the regions' colours below the figure."""
    lines = [Line2D([], [], color=REGION_COLOURS[region], label=REGION_NAMES[region]) for region in outline]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)


def map_over_slice(
    values: np.ndarray,
    image: np.ndarray,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = "viridis",
) -> Figure:
    """A slice (H, W) beside a map of values (h, w) stretched over the same field of view, with a colour bar.

    Args:
        values: what to show in colour.
        image: the slice, z-scores.
        title: above both.
        label: of the colour bar: what the values are.
        limits: the values at the ends of the colour bar; None: those of the map.
        colours: a matplotlib colour map that reads without colour too.
    """
    figure, axes = new_figure(8, 4.3, 1, 2)
    draw_slice(axes[0, 0], image, title="slice")
    draw_map(figure, axes[0, 1], values, image.shape, label=label, limits=limits, colours=colours)
    figure.suptitle(title)
    return figure


def draw_map(
    figure: Figure,
    axes: Axes,
    values: np.ndarray,
    field: tuple[int, ...] | None = None,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = "viridis",
) -> None:
    """Draw a map (h, w) in colour over a field of view of ``field`` (H, W) pixels, with a colour bar."""
    height, width = field or values.shape
    low, high = limits or (None, None)
    picture = axes.imshow(
        values, cmap=colours, vmin=low, vmax=high, extent=(0, width, height, 0), interpolation="nearest"
    )
    figure.colorbar(picture, ax=axes, shrink=0.8, label=label)
    axes.set_title(title)
    axes.set_axis_off()


def maps(
    values: Mapping[str, np.ndarray],
    title: str = "",
    label: str | Mapping[str, str] = "",
    limits: tuple[float, float] | None = None,
    colours: str = "viridis",
    columns: int = 4,
) -> Figure:
    """Several maps, each (h, w) under its title. With ``limits`` they share one scale and can be compared.

    ``label`` says what the colours mean, of all maps or of each one.
    """
    labels = dict.fromkeys(values, label) if isinstance(label, str) else label
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    figure, axes = new_figure(2.8 * columns + 0.6, 2.6 * rows + 0.5, rows, columns)
    for place, (name, array) in zip(axes.flat, values.items(), strict=False):
        draw_map(figure, place, array, title=name, label=labels[name], limits=limits, colours=colours)
    for place in axes.flat[len(values) :]:
        place.set_axis_off()
    figure.suptitle(title)
    return figure


def curves(
    histories: Mapping[str, pd.DataFrame],
    x: str = "epoch",
    y: str = "dice_patient",
    x_label: str = "epoch",
    y_label: str = "Dice per patient",
    title: str = "",
) -> Figure:
    """One curve for each history, told apart by colour and by marker."""
    figure, axes = new_figure(7, 4.2)
    draw_curves(axes[0, 0], histories, x, y, x_label, y_label)
    legend_below(figure, axes[0, 0])
    figure.suptitle(title)
    return figure


def draw_curves(
    axes: Axes, histories: Mapping[str, pd.DataFrame], x: str, y: str, x_label: str = "", y_label: str = ""
) -> None:
    """Draw column ``y`` against column ``x`` of each history."""
    for (name, history), colour, marker in zip(histories.items(), CYCLE * 3, "os^Dvp*" * 3, strict=False):
        axes.plot(history[x], history[y], color=colour, marker=marker, markersize=4, label=name)
    axes.set_xlabel(x_label or x)
    axes.set_ylabel(y_label or y)
    axes.grid(alpha=0.3)
    if x == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend_below(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """Name the curves of one axes, for all of the figure, below it, where the legend covers none of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=min(columns, len(labels)), loc="outside lower center")


def bars(values: Mapping[str, float], x_label: str, title: str = "", digits: int = 3) -> Figure:
    """One horizontal bar for each value, with its number."""
    figure, axes = new_figure(7, 0.45 * len(values) + 1.2)
    drawn = axes[0, 0].barh(list(values), list(values.values()), color=COLOURS["blue"])
    axes[0, 0].bar_label(drawn, fmt=f"{{:,.{digits}f}}", padding=3)
    axes[0, 0].margins(x=0.15)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlabel(x_label)
    figure.suptitle(title)
    return figure


def summarise(arrays: Mapping[str, Any]) -> pd.DataFrame:
    """The numbers behind pictures: for each array its shape, mean, spread and percentiles, as a row."""
    rows = []
    for name, array in arrays.items():
        values = np.asarray(array, dtype=np.float64)
        low, middle, high = np.percentile(values, (5, 50, 95))
        shape = "x".join(str(side) for side in values.shape)
        rows.append((name, shape, values.mean(), values.std(), low, middle, high))
    return pd.DataFrame(rows, columns=["name", "shape", "mean", "sd", "p5", "p50", "p95"])
