"""Runs that differ in nothing but chance: what they have in common, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from emcad_lib.show.plots import CYCLE, draw_curves


def draw_bands(
    axes: Axes,
    runs: Mapping[str, Sequence[pd.DataFrame]],
    x: str,
    y: str,
    x_label: str = "",
    y_label: str = "",
) -> None:
    """For each name, the mean of its histories as a line, and a band from the lowest of them to the highest.

    Args:
        axes: where to draw.
        runs: histories with equally many epochs, by the name of what they have in common.
        x: column along the horizontal axis; its mean, where the runs differ in it.
        y: column along the vertical axis.
        x_label: what to call ``x``.
        y_label: what to call ``y``.
    """
    means = {}
    for (name, histories), colour in zip(runs.items(), CYCLE, strict=False):
        together = pd.concat(histories).groupby("epoch")
        means[name] = together[[x, y]].mean().reset_index(drop=True)
        axes.fill_between(means[name][x], together[y].min(), together[y].max(), color=colour, alpha=0.2, linewidth=0)
    draw_curves(axes, means, x, y, x_label, y_label)


def draw_dots(axes: Axes, groups: Mapping[str, Sequence[float]], label: str) -> None:
    """A dot for each run, and a line at the mean of each group.

    A run without a value (nan) is a hollow triangle at the upper edge, as for what wasn't reached; its group has no
    mean then.
    """
    for place, (values, colour) in enumerate(zip(groups.values(), CYCLE, strict=False)):
        found = np.asarray(values, dtype=np.float64)
        beside = place + np.linspace(-0.15, 0.15, len(found)) if len(found) > 1 else np.array([place])
        missing = np.isnan(found)
        axes.scatter(beside[~missing], found[~missing], color=colour, s=28, zorder=3)
        edge = axes.get_xaxis_transform()  # across in units of the data, up in parts of the axis
        axes.scatter(beside[missing], np.full(missing.sum(), 0.95), marker="^", s=40, facecolor="none",
                     edgecolor=colour, transform=edge)  # fmt: skip
        if not missing.any():
            axes.hlines(found.mean(), place - 0.28, place + 0.28, color=colour, linewidth=2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylabel(label)
    axes.grid(axis="y", alpha=0.3)
