"""A patient's table and the means of many, against numbers that were counted by hand or otherwise computed."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from emcad_lib.evaluate.report import MEASURES, bootstrap_interval, measure_patient, summarise


def bits(whole, core, enhancing, shape=(12, 12, 12)):
    """Region bits of three nested cubes, given by their sides."""
    found = np.zeros(shape, dtype=np.uint8)
    for side, value in ((whole, 1), (core, 3), (enhancing, 7)):
        found[:side, :side, :side] = value if side else 0
    return found


def test_each_region_is_measured_by_itself():
    table = measure_patient(bits(6, 2, 1), bits(6, 4, 1), (1.0, 1.0, 2.0)).set_index("region")

    assert table.index.tolist() == ["whole", "core", "enhancing"]
    assert table["dice"].tolist() == pytest.approx([1, 2 * 8 / (8 + 64), 1])
    assert table["sensitivity"].tolist() == pytest.approx([1, 8 / 64, 1])
    assert table["specificity"].tolist() == [1, 1, 1]
    assert table["true_cm3"].tolist() == pytest.approx([0.432, 0.128, 0.002])
    assert table["error_cm3"].tolist() == pytest.approx([0, (8 - 64) * 2 / 1000, 0])


def test_a_region_that_is_not_there_has_the_values_that_are_said_of_it():
    table = measure_patient(bits(3, 2, 0), bits(3, 0, 0)).set_index("region")

    assert table.loc["core", "dice"] == 0
    assert table.loc["enhancing", "dice"] == 1
    assert np.isnan(table.loc["core", "hd95_mm"])
    assert table.loc["enhancing", "hd95_mm"] == 0
    assert table.loc[["core", "enhancing"], "sensitivity"].isna().all()
    assert table.loc["core", "specificity"] == pytest.approx(1 - 8 / 12**3)


def surface(mask):
    """Voxels with a face towards the outside, the edge of the image included: by looking at each neighbour."""
    points = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                near = place.copy()
                near[axis] += step
                if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                    points.append(tuple(place))
    return np.array(sorted(set(points)), dtype=float)


def independent_hd95(one, other, spacing):
    distances = cdist(surface(one) * spacing, surface(other) * spacing)
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def blank(*places):
    mask = np.zeros((9, 8, 7), dtype=np.uint8)
    for place in places:
        mask[place] = 1
    return mask


PAIRS = {
    "one voxel each": (blank((1, 2, 3)), blank((7, 2, 5))),
    "a voxel and everything": (blank((4, 4, 4)), np.ones((9, 8, 7), dtype=np.uint8)),
    "at the border": (blank((slice(0, 3), slice(0, 8), 0)), blank((slice(6, 9), slice(5, 8), slice(4, 7)))),
    "both full": (np.ones((9, 8, 7), dtype=np.uint8),) * 2,
    **{
        f"at random, {seed}": tuple(np.random.default_rng(seed).random((2, 9, 8, 7)) < share)
        for seed, share in enumerate((0.02, 0.1, 0.5, 0.95))
    },
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.5, 4.0)])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_all_measures_agree_with_another_computation_of_each(pair, spacing):
    found, truth = (np.asarray(mask, dtype=np.uint8) for mask in pair)

    row = measure_patient(found, truth, spacing, ["whole"]).iloc[0]

    f, t = found.ravel().tolist(), truth.ravel().tolist()
    both = sum(a and b for a, b in zip(f, t, strict=True))
    neither = sum(not a and not b for a, b in zip(f, t, strict=True))
    voxel = spacing[0] * spacing[1] * spacing[2] / 1000
    assert row["dice"] == pytest.approx(2 * both / (sum(f) + sum(t)))
    assert row["hd95_mm"] == pytest.approx(independent_hd95(found, truth, np.array(spacing)), abs=1e-4)
    assert row["sensitivity"] == pytest.approx(both / sum(t))
    without = len(t) - sum(t)
    assert row["specificity"] == pytest.approx(neither / without if without else np.nan, nan_ok=True)
    assert row["error_cm3"] == pytest.approx((sum(f) - sum(t)) * voxel)


def test_the_interval_is_that_of_the_normal_approximation_where_that_holds():
    values = np.random.default_rng(3).normal(10, 2, 400)

    low, high = bootstrap_interval(values)

    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.03)
    assert bootstrap_interval(values) == (low, high)


@pytest.mark.parametrize(("values", "interval"), [([0.5], (0.5, 0.5)), ([0.3, np.nan], (0.3, 0.3))])
def test_one_patient_has_no_spread_and_nan_is_not_drawn(values, interval):
    assert bootstrap_interval(values) == interval


def test_no_value_at_all_has_no_interval():
    assert np.isnan(bootstrap_interval([])).all()
    assert np.isnan(bootstrap_interval([np.nan])).all()


def test_the_summary_has_each_measure_of_each_region_and_counts_the_patients_who_have_it():
    patients = [measure_patient(bits(6, core, 1), bits(6, 4, 1)).assign(patient=core) for core in (0, 2, 4)]

    summary = summarise(pd.concat(patients)).set_index(["region", "measure"])

    assert len(summary) == 3 * len(MEASURES)
    core = summary.loc["core", "dice"]
    assert core["mean"] == pytest.approx((2 / (64 + 1) + 2 * 8 / 72 + 1) / 3)
    assert core["low"] < core["mean"] < core["high"]
    assert summary.loc[("core", "hd95_mm"), "patients"] == 3
