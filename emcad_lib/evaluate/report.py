"""Patients, measured as BraTS does: each region by overlap, distance and volume; and how far the means can be trusted.

Source: Menze et al. 2015 (regions and measures); Efron 1979 (the bootstrap). Shown in notebooks/12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from emcad_lib.data.labels import REGIONS, region_mask
from emcad_lib.evaluate.metrics import dice, hd95, sensitivity, specificity, volume_cm3

# Each measure of a region in a patient, and what it says.
MEASURES = {
    "dice": "Dice in 3D; 1 where the region is neither there nor found",
    "hd95_mm": "95% Hausdorff distance in mm; 0 where neither, empty where only one of both is there",
    "sensitivity": "share of the true region that was found; empty where it isn't there",
    "specificity": "share of all else, air included, that was left alone",
    "true_cm3": "volume of the true region",
    "found_cm3": "volume of what was found",
    "error_cm3": "found volume less true volume",
}
SHARE = 0.95  # of the bootstrap's means lie in the interval


def measure_patient(
    found: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    regions: Sequence[str] = REGIONS,
) -> pd.DataFrame:
    """A patient's table: a row for each region, the columns "region" and those of `MEASURES`.

    Args:
        found: region bits (I, J, K) of a segmentation, as ``segment_scan`` gives them.
        truth: region bits of the patient's own.
        spacing: mm between voxels along each axis.
        regions: those to measure.

    Raises:
        CourseError: an unknown region.
        ValueError: shapes differ.
    """
    rows: list[dict[str, Any]] = []
    for region in regions:
        ours, theirs = region_mask(found, region), region_mask(truth, region)
        volumes = volume_cm3(theirs, spacing), volume_cm3(ours, spacing)
        rows.append(
            {
                "region": region,
                "dice": dice(ours, theirs),
                "hd95_mm": hd95(ours, theirs, spacing),
                "sensitivity": sensitivity(ours, theirs),
                "specificity": specificity(ours, theirs),
                "true_cm3": volumes[0],
                "found_cm3": volumes[1],
                "error_cm3": volumes[1] - volumes[0],
            }
        )
    return pd.DataFrame(rows)


def bootstrap_interval(values: ArrayLike, repeats: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Between which values the mean would lie in 95% of the cases, had other patients of the same kind been drawn.

    As many patients as there are, drawn with repetition, and their mean, ``repeats`` times; what is NaN isn't drawn.

    Returns:
        Lower and upper end; NaN without a value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if not numbers.size:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).choice(numbers, size=(repeats, numbers.size))
    low, high = np.quantile(draws.mean(axis=1), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """All patients' table as means: a row for each region and measure, with the columns mean, low and high (ends of the
    bootstrap's interval), median, and the number of patients that have a value.
    """
    rows = []
    for region, patients in table.groupby("region", sort=False):
        for measure in MEASURES:
            values = patients[measure].dropna()
            low, high = bootstrap_interval(values)
            rows.append(
                {
                    "region": region,
                    "measure": measure,
                    "mean": values.mean(),
                    "low": low,
                    "high": high,
                    "median": values.median(),
                    "patients": len(values),
                }
            )
    return pd.DataFrame(rows)
