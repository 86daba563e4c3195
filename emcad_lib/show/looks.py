"""What a block sees, keeps and looks at, beside the patient's slice. Pure functions: arrays in, a Figure out.

In all of them ``image`` is a slice (H, W) of z-scores and ``tumour`` a mask (H, W), 1 or True in the whole tumour. Maps
may be coarser than the slice: they are stretched over the same field of view, and the tumour's outline lies on each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emcad_lib.show import plots

OUTLINES = {"RdBu_r": "black", "gray": plots.REGION_COLOURS["whole"]}  # by the map's colours; on all others white


def beside_slice(
    image: np.ndarray,
    tumour: np.ndarray,
    maps: Mapping[str, np.ndarray],
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = "viridis",
    place: tuple[float, float] | None = None,
) -> Figure:
    """A slice, and beside it maps of it, each with the tumour's outline and a colour bar.

    Args:
        image, tumour: the slice.
        maps: (h, w) each, by the title to show.
        title: above all.
        label: of the colour bars: what the values are.
        limits: the values at the ends of all colour bars; None: each map's own.
        colours: a matplotlib colour map that reads without colour too.
        place: row and column of a pixel of the slice, to mark everywhere with a cross.
    """
    columns = 1 + len(maps)
    side = min(3.8, max(2.6, 11 / columns))
    figure, axes = plots.new_figure(side * columns + 0.6, side + 0.6, 1, columns)
    draw_patient(axes[0, 0], image, tumour)
    for axis, (name, values) in zip(axes[0, 1:], maps.items(), strict=True):
        draw_outlined_map(figure, axis, values, tumour, name, label, limits, colours)
    for axis in axes[0] if place is not None else ():
        corner = 0.0 if axis is axes[0, 0] else 0.5  # a slice is drawn round its pixels' centres, a map from its corner
        assert place is not None
        axis.plot(place[1] + corner, place[0] + corner, "+", color=plots.COLOURS["green"], markersize=12, mew=2)
    figure.suptitle(title)
    return figure


def channel_knobs(image: np.ndarray, tumour: np.ndarray, knobs: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """A slice, and beside it a bar for each channel: how far it is let through, from the most open to the most closed.

    Args:
        image, tumour: the slice.
        knobs: values in (0, 1), (C,) each, by the name of the network; one row of bars for each.
        title: above all.
    """
    height = 2.1 * len(knobs) + 0.9
    figure = Figure(figsize=(10.5, height), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(3.2, 7.3))[0]
    draw_patient(left.subplots(), image, tumour)
    rows = right.subplots(len(knobs), 1, squeeze=False)[:, 0]
    for row, (name, values), colour in zip(rows, knobs.items(), plots.CYCLE, strict=False):
        order = by_openness(values)
        row.bar(range(len(order)), np.asarray(values)[order], color=colour, width=1)
        row.axhline(0.5, color="black", linewidth=0.8, linestyle="--")
        row.set_ylim(0, 1)
        row.set_ylabel("knob")
        row.set_title(f"{name}: most open {_few(order[:4])}, most closed {_few(order[:-5:-1])}", fontsize=10)
    rows[-1].set_xlabel("channels, from the most open to the most closed")
    figure.suptitle(title)
    return figure


def open_and_closed(
    image: np.ndarray, tumour: np.ndarray, features: np.ndarray, knobs: np.ndarray, title: str = "", count: int = 3
) -> Figure:
    """The channels that are let through most (above) and least (below), each with its number and its knob.

    Args:
        image, tumour: the slice.
        features: (C, h, w), as they come in; C is 2 ``count`` or more.
        knobs: (C,), in (0, 1).
        title: above all.
        count: how many of either kind.
    """
    figure, axes = plots.new_figure(2.6 * (count + 1) + 0.6, 5.6, 2, count + 1)
    draw_patient(axes[0, 0], image, tumour)
    axes[1, 0].set_axis_off()
    order = by_openness(knobs)
    for row, chosen in zip(axes[:, 1:], (order[:count], order[-count:]), strict=True):
        for axis, channel in zip(row, chosen, strict=True):
            name = f"channel {channel}: knob {knobs[channel]:.2f}"
            draw_outlined_map(figure, axis, features[channel], tumour, name, "feature")
    figure.suptitle(title)
    return figure


def knobs_of_two(
    slices: Mapping[str, tuple[np.ndarray, np.ndarray]], knobs: Sequence[Mapping[int, np.ndarray]], title: str = ""
) -> Figure:
    """Two slices, and each channel as a point: its knob on the one against its knob on the other.

    Args:
        slices: two pairs of image and tumour, by the name of the slice.
        knobs: for each of both slices (C,), in (0, 1), by stage.
        title: above all.
    """
    figure, axes = plots.new_figure(10, 3.6, 1, 3)
    for axis, (name, (image, tumour)) in zip(axes[0], slices.items(), strict=False):
        draw_patient(axis, image, tumour, name)
    axes[0, 2].plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
    first, second = knobs
    for stage, colour, marker in zip(first, plots.CYCLE, "o^sD", strict=False):
        axes[0, 2].scatter(first[stage], second[stage], s=14, color=colour, marker=marker, label=f"stage {stage}")
    labels = [f"knob, {name}" for name in slices]
    axes[0, 2].set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes[0, 2].legend(frameon=False)
    figure.suptitle(title)
    return figure


def by_openness(knobs: np.ndarray) -> list[int]:
    """The numbers of the channels (C,), from the most open to the most closed; of equal ones the lower number first."""
    return np.argsort(-np.asarray(knobs), kind="stable").tolist()


def draw_patient(axes: Axes, image: np.ndarray, tumour: np.ndarray, title: str = "slice and tumour") -> None:
    """Draw a slice in grey with the outline of the whole tumour, if there is any."""
    plots.draw_slice(axes, np.asarray(image), np.asarray(tumour).astype(np.uint8), title, outline=["whole"])


def draw_outlined_map(
    figure: Figure,
    axes: Axes,
    values: np.ndarray,
    tumour: np.ndarray,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = "viridis",
) -> None:
    """Draw a map (h, w) over the field of view of a mask (H, W), with the mask's outline. See `beside_slice`."""
    mask = np.asarray(tumour).astype(bool)
    plots.draw_map(figure, axes, np.asarray(values), mask.shape, title, label, limits, colours)
    draw_outline(axes, mask, OUTLINES.get(colours, "white"))
    axes.title.set_fontsize(10)


def draw_outline(axes: Axes, mask: np.ndarray, colour: str = "white", centre: float = 0.5) -> None:
    """Draw the outline of a mask (H, W), if there is any.

    Args:
        axes: with a map that is stretched over (H, W) pixels, or with a slice.
        mask: 0 or False outside.
        colour: of the line.
        centre: where the centre of the first pixel lies: 0.5 on a stretched map, 0 on a slice.
    """
    inside = np.asarray(mask) > 0
    if inside.any() and not inside.all():  # or else there is no line, and matplotlib warns
        rows, columns = (np.arange(length) + centre for length in inside.shape)
        axes.contour(columns, rows, inside, levels=[0.5], colors=[colour], linewidths=1.0)


def _few(channels: Sequence[int]) -> str:
    return ", ".join(str(channel) for channel in channels)
