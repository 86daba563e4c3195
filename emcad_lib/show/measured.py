"""Pictures of measured patients: by region, by size, errors of volumes, calibration. Tables in, a Figure out.

The tables are those of ``evaluate/report.py``: a row for each patient and region. Regions differ in colour and marker.
Shown in notebooks/12.

Source: Bland and Altman 1986 (differences over means); Guo et al. 2017 (reliability diagrams).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emcad_lib.show.plots import COLOURS, CYCLE, REGION_COLOURS, REGION_NAMES, legend_below, new_figure

MARKERS = {"whole": "o", "core": "s", "enhancing": "^"}


def by_region(measured: pd.DataFrame) -> Figure:
    """Dice and HD95: a row for each patient, the best whole tumour on top; a mark for each region; means dotted.

    Args:
        measured: with the columns patient, region, dice, hd95_mm; the region "whole" for everybody.
    """
    whole = measured[measured["region"] == "whole"]
    order = whole.sort_values("dice")["patient"].tolist()
    figure, axes = new_figure(9, max(3.6, 0.22 * len(order) + 1.5), 1, 2)
    for region, rows in _regions(measured):
        here = rows.set_index("patient").reindex(order)
        for place, measure in zip(axes[0], ("dice", "hd95_mm"), strict=True):
            colour = REGION_COLOURS[region]
            place.plot(here[measure], range(len(order)), MARKERS[region], color=colour, label=REGION_NAMES[region])
            place.axvline(here[measure].mean(), color=colour, linewidth=1, linestyle=":")
    axes[0, 0].set(xlabel="Dice", xlim=(-0.02, 1.02), title="overlap: more is better")
    axes[0, 1].set(xlabel="HD95, mm", title="distance: less is better")
    axes[0, 0].set_yticks(range(len(order)), order)
    axes[0, 1].set_yticks(range(len(order)), [""] * len(order))
    for place in axes[0]:
        place.grid(axis="y", alpha=0.3)
    legend_below(figure, axes[0, 0])
    return figure


def by_size(measured: pd.DataFrame, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Dice and HD95 of each patient's regions over their true volume, where there is any.

    Args:
        measured: with the columns region, true_cm3, dice, hd95_mm.
        curves: to compare Dice with: by name, volumes in cm3 and the Dice of each.
    """
    figure, axes = new_figure(9, 4.3, 1, 2)
    for (name, (volumes, scores)), style in zip(curves.items(), ("-", "--", ":", "-.") * len(curves), strict=False):
        axes[0, 0].plot(volumes, scores, style, color="0.5", label=name)
    for region, rows in _regions(measured[measured["true_cm3"] > 0]):
        for place, measure in zip(axes[0], ("dice", "hd95_mm"), strict=True):
            colour, label = REGION_COLOURS[region], REGION_NAMES[region]
            place.plot(rows["true_cm3"], rows[measure], MARKERS[region], color=colour, label=label)
    axes[0, 0].set(xscale="log", xlabel="true volume, cm3", ylabel="Dice", ylim=(-0.02, 1.02), title="overlap")
    axes[0, 1].set(xscale="log", xlabel="true volume, cm3", ylabel="HD95, mm", title="distance")
    legend_below(figure, axes[0, 0], columns=3)
    return figure


def volume_errors(measured: pd.DataFrame, limits: pd.DataFrame) -> Figure:
    """For each region the difference of found and true volume over their mean, with the mean error and its limits.

    Args:
        measured: with the columns region, true_cm3, found_cm3, error_cm3.
        limits: by region, the columns "mean error" and "spread": the limits lie so far below and above the mean.
    """
    figure, axes = new_figure(9.5, 3.6, 1, max(len(limits), 1))
    for place, (region, rows) in zip(axes[0], _regions(measured), strict=True):
        bias, spread = (float(limits["mean error"][region]), float(limits["spread"][region]))
        both = (rows["found_cm3"] + rows["true_cm3"]) / 2
        place.plot(both, rows["error_cm3"], MARKERS[region], color=REGION_COLOURS[region])
        place.axhline(0, color="0.8", linewidth=1)
        place.axhline(bias, color=COLOURS["black"], linewidth=1.5)
        for end in (bias - spread, bias + spread):
            place.axhline(end, color=COLOURS["black"], linewidth=1, linestyle="--")
        place.set(xlabel="mean of found and true, cm3", title=REGION_NAMES[region])
    axes[0, 0].set_ylabel("found less true, cm3")
    figure.suptitle("Error of the volume (line: mean; dashed: limits)")
    return figure


def calibration(tables: Mapping[tuple[str, str], pd.DataFrame]) -> Figure:
    """For each region, what came true over what was said, a line for each way to predict; below, how many voxels.

    Args:
        tables: by way and region; a row for each bin of probability from 0 to 1, with the columns voxels, said (mean
            probability) and true (share of tumour). The bars are those of the last way.
    """
    ways, regions = (list(dict.fromkeys(part)) for part in zip(*tables, strict=True))
    figure, axes = new_figure(9.5, 5.6, 2, len(regions))
    for (top, below), region in zip(axes.T, regions, strict=True):
        top.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="calibrated")
        for way, marker, colour in zip(ways, "os^Dv" * len(ways), CYCLE * len(ways), strict=False):
            table = tables[way, region]
            top.plot(table["said"], table["true"], marker + "-", color=colour, markersize=4, label=way)
        counts = tables[ways[-1], region]["voxels"]
        width = 1 / len(counts)
        below.bar((np.arange(len(counts)) + 0.5) * width, counts, 0.9 * width, color=REGION_COLOURS[region])
        top.set(title=REGION_NAMES[region], xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="probability")
        below.set(yscale="log", xlabel="probability", xlim=(0, 1))
    axes[0, 0].set_ylabel("share that is tumour")
    axes[1, 0].set_ylabel(f"voxels ({ways[-1]})")
    legend_below(figure, axes[0, 0])
    return figure


def _regions(measured: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each region's rows, in the order of their first appearance."""
    for region, rows in measured.groupby("region", sort=False):
        yield str(region), rows
