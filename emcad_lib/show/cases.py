"""One patient in pictures: three linked views, a body from outside, and a slice's errors. Arrays in, a Figure out.

Volumes run to the patient's left, back and top, as a ``Scan`` holds them. Each view is the radiologist's: from above
and from the front, the patient's left is on the viewer's right; from the side, the nose points to the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import ndimage

from emcad_lib.show.plots import COLOURS, REGION_COLOURS, REGION_NAMES, draw_slice, new_figure

# What a voxel can be to a segmentation: its colour, and a hatch for those who can't see it.
ERRORS = {
    "found": (COLOURS["green"], ""),
    "missed": (COLOURS["sky"], "////"),
    "false alarm": (COLOURS["red"], "...."),
}
BAR_MM = 50


def cuts(volume: NDArray[np.generic], point: Sequence[int]) -> dict[str, NDArray[np.generic]]:
    """The axial, the coronal and the sagittal slice of a volume (I, J, K) through ``point``, by their names."""
    i, j, k = point
    return {
        "from above": volume[:, :, k].T,  # (J, I)
        "from the front": volume[:, j, ::-1].T,  # (K, I)
        "from the side": volume[i, :, ::-1].T,  # (K, J)
    }


def linked_views(
    volume: NDArray[np.generic],
    masks: Mapping[str, NDArray[np.bool_]],
    point: Sequence[int],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    title: str = "",
    dashed: Sequence[str] = (),
    window: tuple[float, float] = (-2.5, 4.0),
) -> Figure:
    """Three slices through one point of a head, with the outlines of masks; each shows where the two others cut it.

    Args:
        volume: z-scores (I, J, K), 0 outside the brain.
        masks: (I, J, K), by what to call them. A region, alone or as in "core, true", has its colour and its full name.
        point: the voxel (i, j, k) that all three slices go through.
        spacing: millimetres between voxels along each axis. The white bar is 50 mm long.
        title: above the figure.
        dashed: which of the masks to draw dashed.
        window: the z-scores shown as black and as white.
    """
    i, j, k = point
    across, deep, high = spacing
    down = volume.shape[2] - 1 - k  # rows are counted from the top
    views = {"from above": (i, j, across, deep), "from the front": (i, down, across, high)}
    views["from the side"] = (j, down, deep, high)
    spare = iter([COLOURS[name] for name in ("sky", "red", "orange", "purple", "yellow") * len(masks)])
    colours = {name: REGION_COLOURS.get(name.partition(", ")[0]) or next(spare) for name in masks}
    figure, axes = new_figure(8, 3.7, 1, 3)
    for place, (name, (column, row, width, height)) in zip(axes[0], views.items(), strict=True):
        image = cuts(volume, point)[name]
        draw_slice(place, image, title=name, window=window)
        place.set_aspect(height / width)
        rows, columns = image.shape
        _crosshair(place, column, row, columns, rows)
        place.plot([4, 4 + BAR_MM / width], [rows - 4] * 2, color="white", linewidth=2)
        for label, mask in masks.items():
            cut = cuts(mask, point)[name]
            if cut.any() and not cut.all():
                style = "dashed" if label in dashed else "solid"
                place.contour(cut, levels=[0.5], colors=[colours[label]], linewidths=1.2, linestyles=style)
    lines = []
    for name, colour in colours.items():
        region, _, more = name.partition(", ")
        label = ", ".join(filter(None, (REGION_NAMES.get(region, region), more)))
        lines.append(Line2D([], [], color=colour, linestyle="--" if name in dashed else "-", label=label))
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    return figure


def _crosshair(axes: Axes, column: int, row: int, columns: int, rows: int) -> None:
    """Two lines that meet at a pixel, and leave it and what is round it free."""
    gap = 0.05 * max(columns, rows)
    for ends in ((-0.5, column - gap), (column + gap, columns - 0.5)):
        axes.plot(ends, [row, row], color=COLOURS["yellow"], linewidth=0.8)
    for ends in ((-0.5, row - gap), (row + gap, rows - 0.5)):
        axes.plot([column, column], ends, color=COLOURS["yellow"], linewidth=0.8)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def draw_errors(
    axes: Axes,
    image: NDArray[np.generic],
    found: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    title: str = "",
) -> None:
    """A slice (H, W) with what was found, missed and falsely found, each in its colour and hatch."""
    draw_slice(axes, image, title=title)
    kinds = {"found": found & truth, "missed": truth & ~found, "false alarm": found & ~truth}
    for name, mask in kinds.items():
        colour, hatch = ERRORS[name]
        if mask.any():
            layer = np.zeros((*mask.shape, 4))
            layer[mask] = (*to_rgb(colour), 0.55)
            axes.imshow(layer, interpolation="nearest")
            if hatch:
                inside = np.repeat(np.repeat(mask, 4, axis=0), 4, axis=1)  # so that the hatch ends where the pixels do
                extent = (-0.5, mask.shape[1] - 0.5, -0.5, mask.shape[0] - 0.5)
                axes.contourf(inside, levels=[0.5, 1.5], colors="none", hatches=[hatch], extent=extent)


def error_gallery(
    cases: Mapping[str, tuple[NDArray[np.generic], NDArray[np.bool_], NDArray[np.bool_]]], title: str = ""
) -> Figure:
    """The errors of several slices: for each title the image, what was found, and the truth, all of them (H, W)."""
    columns = min(len(cases), 2)
    rows = -(-len(cases) // columns)
    figure, axes = new_figure(3.6 * columns, 3.3 * rows + 0.6, rows, columns)
    for place in axes.flat:
        place.set_axis_off()
    for place, (name, (image, found, truth)) in zip(axes.flat, cases.items(), strict=False):
        draw_errors(place, image, found, truth, name)
    patches = [
        Patch(facecolor=colour, alpha=0.8, hatch=hatch, edgecolor="black", label=name)
        for name, (colour, hatch) in ERRORS.items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    return figure


def solid_views(
    brain: NDArray[np.bool_],
    masks: Mapping[str, NDArray[np.bool_]],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    title: str = "",
) -> Figure:
    """A head from below, the front and its left, as a body: the brain in grey, and the masks shine through it.

    Args:
        brain: (I, J, K), True inside the brain.
        masks: (I, J, K), from the outermost to the innermost, by region.
        spacing: millimetres between voxels along each axis.
        title: above the figure.
    """
    across, deep, high = spacing
    # Rows, columns and the way that one looks, from the viewer on; and the size of a voxel in this order.
    views = {
        "from below": (lambda body: body.transpose(1, 0, 2), (deep, across, high)),
        "from the front": (lambda body: body[:, :, ::-1].transpose(2, 0, 1), (high, across, deep)),
        "from its left": (lambda body: body[::-1, :, ::-1].transpose(2, 1, 0), (high, deep, across)),
    }
    figure, axes = new_figure(7, 3.1, 1, 3)
    for place, (name, (turn, size)) in zip(axes[0], views.items(), strict=True):
        hit, light = _lit(turn(brain), size)
        picture = np.where(hit, 0.25 + 0.45 * light, 0.0)[..., None] * np.ones(3)
        for depth, (label, mask) in enumerate(masks.items(), start=1):
            hit, light = _lit(turn(mask), size)
            share = 0.35 + 0.5 * depth / len(masks)  # the innermost must be seen through all others
            colour = np.asarray(to_rgb(REGION_COLOURS.get(label, COLOURS["red"])))
            shaded = (0.35 + 0.65 * light)[..., None] * colour
            picture = np.where(hit[..., None], (1 - share) * picture + share * shaded, picture)
        place.imshow(picture, aspect=size[0] / size[1])
        place.set_title(name)
        place.set_axis_off()
    patches = [
        Patch(color=REGION_COLOURS.get(name, COLOURS["red"]), label=REGION_NAMES.get(name, name)) for name in masks
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=max(len(masks), 1), frameon=False)
    figure.suptitle(title)
    return figure


def _lit(body: NDArray[np.bool_], size: Sequence[float]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Where one looking along the last axis sees a body, and how bright a lamp beside the viewer makes it there."""
    hit = np.asarray(body.any(axis=2))
    depth = np.where(hit, body.argmax(axis=2), body.shape[2]) * size[2]
    depth = ndimage.gaussian_filter(depth.astype(np.float64), 1.0)
    down, right = np.gradient(depth, size[0], size[1])
    return hit, 1 / np.sqrt(1 + down**2 + right**2)  # the cosine between the line of sight and the surface's normal
