"""Metrics against hand-worked numbers and against independent computations."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt

from emcad_lib.evaluate.metrics import DEFINITIONS, dice, dice_by_definition, hd95, slice_dice, volume_cm3

EMPTY = np.zeros((4, 4), dtype=bool)
FULL = np.ones((4, 4), dtype=bool)


def box(shape, *ranges):
    """A mask that is True in the box of the given (start, stop) ranges; an axis without a range is filled."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*edges) for edges in ranges)] = True
    return mask


def surface_by_neighbours(mask):
    """Voxels of a mask that have a face towards the outside, found by comparing with each shifted copy."""
    padded = np.pad(mask, 1)
    inside = padded.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)
    return (padded & ~inside)[tuple(slice(1, -1) for _ in mask.shape)]


def hd95_by_all_pairs(prediction, target, spacing):
    """The definition, spelt out: all distances between two surfaces' voxels."""
    ours, theirs = (np.argwhere(surface_by_neighbours(mask)) * np.array(spacing) for mask in (prediction, target))
    distances = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(axis=-1))
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def hd95_by_distance_transform(prediction, target, spacing):
    surfaces = [mask & ~binary_erosion(mask) for mask in (prediction, target)]
    ours, theirs = surfaces
    there = distance_transform_edt(~theirs, sampling=spacing)[ours]
    back = distance_transform_edt(~ours, sampling=spacing)[theirs]
    return max(np.percentile(there, 95), np.percentile(back, 95))


# Dice of two masks


def test_dice_is_twice_the_overlap_over_the_sum_of_both():
    prediction = box((4, 4), (0, 2), (0, 2))  # 4 pixels
    target = box((4, 4), (0, 2), (1, 4))  # 6 pixels, 2 of them in both

    assert dice(prediction, target) == pytest.approx(2 * 2 / (4 + 6))


def test_correct_empty_slice_counts_as_one_by_default_and_as_zero_in_the_published_convention():
    assert dice(EMPTY, EMPTY) == 1.0
    assert dice(EMPTY, EMPTY, both_empty=0.0, false_positive=1.0) == 0.0


def test_false_positive_on_an_empty_slice_counts_as_zero_by_default_and_as_one_in_the_published_convention():
    assert dice(FULL, EMPTY) == 0.0
    assert dice(FULL, EMPTY, both_empty=0.0, false_positive=1.0) == 1.0


def test_missed_tumour_scores_zero_whatever_the_convention():
    assert dice(EMPTY, FULL) == 0.0
    assert dice(EMPTY, FULL, both_empty=1.0, false_positive=1.0) == 0.0


def test_identical_masks_score_one_whether_full_or_one_voxel_or_at_the_border():
    corner = box((4, 4), (3, 4), (3, 4))

    assert dice(FULL, FULL) == 1.0
    assert dice(corner, corner) == 1.0
    assert dice(corner, box((4, 4), (0, 1), (0, 1))) == 0.0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_tensors_of_any_type_score_as_arrays_do(dtype):
    prediction = torch.zeros(2, 3, dtype=dtype)
    prediction[0, :2] = 1

    assert dice(prediction, np.array([[1, 0, 0], [0, 0, 0]])) == pytest.approx(2 / 3)


def test_a_tensor_with_a_gradient_can_be_scored():
    assert dice(torch.ones(2, 2, requires_grad=True), torch.ones(2, 2)) == 1.0


def test_probabilities_are_refused_with_the_name_of_the_argument():
    with pytest.raises(ValueError, match=r"prediction must be a mask of 0 and 1, and holds 0\.7"):
        dice(np.array([0.0, 0.7]), np.array([0, 1]))
    with pytest.raises(ValueError, match="target must be a mask of 0 and 1, and holds 4"):
        dice(np.array([0, 1]), np.array([0, 4]))


def test_nan_is_refused_with_the_name_of_the_argument():
    with pytest.raises(ValueError, match="target must be a mask of 0 and 1, and holds NaN"):
        dice(np.array([0.0, 1.0]), torch.tensor([0.0, math.nan]))


def test_differing_shapes_are_refused_and_not_broadcast():
    with pytest.raises(ValueError, match=r"differ in shape: \(4, 4\) and \(1, 4\)"):
        dice(FULL, FULL[:1])


def test_dice_agrees_with_counting_one_pixel_after_another():
    rng = np.random.default_rng(0)
    for share in (0.05, 0.5, 0.95):
        prediction, target = rng.random((2, 5, 6, 7)) < share
        both = either = 0
        for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
            both += p and t
            either += p + t
        assert dice(prediction, target) == pytest.approx(2 * both / either)


def test_slice_dice_scores_each_slice_as_dice_would():
    prediction = np.stack([FULL, EMPTY, FULL, box((4, 4), (0, 1), (0, 4))])
    target = np.stack([FULL, EMPTY, EMPTY, FULL])

    assert slice_dice(prediction, target).tolist() == [1.0, 1.0, 0.0, pytest.approx(2 * 4 / 20)]


# Dice by definition


def test_the_same_predictions_score_differently_by_each_definition():
    # Two patients of 2 x 2 slices. First: half found; false alarm; rightly empty. Second: missed; rightly empty.
    first_prediction = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]])
    first_target = np.array([[[1, 1], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    second_prediction = np.zeros((2, 2, 2), dtype=int)
    second_target = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 0]]])

    scores = dice_by_definition([first_prediction, second_prediction], [first_target, second_target])

    half = 2 * 1 / (1 + 3)  # of the first slice
    assert scores["slice_empty0"] == pytest.approx((half + 0 + 0 + 0 + 0) / 5)
    assert scores["slice_empty1"] == pytest.approx((half + 0 + 1 + 0 + 1) / 5)
    assert scores["slice_tumour"] == pytest.approx((half + 0) / 2)
    assert scores["slice_published"] == pytest.approx((half + 1 + 0 + 0 + 0) / 5)
    assert scores["patient"] == pytest.approx((2 * 1 / (2 + 3) + 0) / 2)


def test_every_definition_has_a_score_and_a_description_in_one_order():
    scores = dice_by_definition([np.zeros((1, 2, 2))], [np.ones((1, 2, 2))])

    assert list(scores) == list(DEFINITIONS)


@pytest.mark.parametrize(
    ("found", "tumour", "expected"),
    [
        (False, False, {"slice_empty0": 0, "slice_empty1": 1, "slice_published": 0, "patient": 1}),
        (True, False, {"slice_empty0": 0, "slice_empty1": 0, "slice_published": 1, "patient": 0}),
        (False, True, {"slice_empty0": 0, "slice_empty1": 0, "slice_published": 0, "patient": 0, "slice_tumour": 0}),
        (True, True, {"slice_empty0": 1, "slice_empty1": 1, "slice_published": 1, "patient": 1, "slice_tumour": 1}),
    ],
)
def test_truth_table_of_one_slice(found, tumour, expected):
    scores = dice_by_definition([np.full((1, 2, 2), found)], [np.full((1, 2, 2), tumour)])

    assert {name: score for name, score in scores.items() if not math.isnan(score)} == expected


def test_with_a_correct_empty_scored_zero_even_a_perfect_model_reaches_only_the_share_of_tumour_slices():
    target = np.zeros((20, 4, 4), dtype=bool)
    target[6:15, 1:3, 1:3] = True  # 9 of 20 slices: 0.45, as in BraTS

    scores = dice_by_definition([target], [target])

    assert scores["slice_empty0"] == pytest.approx(0.45)
    assert scores["slice_empty1"] == scores["slice_tumour"] == scores["patient"] == 1.0


def test_with_a_correct_empty_scored_zero_no_prediction_exceeds_the_share_of_tumour_slices():
    rng = np.random.default_rng(1)
    for _ in range(50):
        target = rng.random((12, 3, 3)) < rng.choice([0.05, 0.3])
        prediction = target ^ (rng.random(target.shape) < rng.choice([0.0, 0.02, 0.3]))
        share = target.any(axis=(1, 2)).mean()
        assert dice_by_definition([prediction], [target])["slice_empty0"] <= share + 1e-12


def test_in_the_published_convention_calling_everything_tumour_pays_on_every_empty_slice():
    target = np.zeros((4, 2, 2), dtype=bool)
    target[0] = True

    everywhere = dice_by_definition([np.ones_like(target)], [target])
    perfect = dice_by_definition([target], [target])

    assert everywhere["slice_published"] == 1.0
    assert perfect["slice_published"] == 0.25


def test_patients_may_differ_in_shape_and_slices_are_pooled_but_patients_weigh_alike():
    right = np.ones((3, 2, 2), dtype=bool)
    wrong = np.ones((1, 5, 4), dtype=bool)

    scores = dice_by_definition([right, ~wrong], [right, wrong])

    assert scores["slice_tumour"] == 0.75
    assert scores["patient"] == 0.5


def test_scores_over_tumour_slices_are_nan_where_no_slice_holds_tumour():
    scores = dice_by_definition([np.zeros((2, 4, 4))], [np.zeros((2, 4, 4))])

    assert math.isnan(scores["slice_tumour"])


def test_dice_by_definition_refuses_what_does_not_fit():
    slices = np.zeros((2, 4, 4), dtype=bool)
    with pytest.raises(ValueError, match="one at least, not 0 and 0"):
        dice_by_definition([], [])
    with pytest.raises(ValueError, match="1 and 2"):
        dice_by_definition([slices], [slices, slices])
    with pytest.raises(ValueError, match=r"Patient 1: masks are \(slices, height, width\), not \(4, 4\)"):
        dice_by_definition([slices, EMPTY], [slices, EMPTY])


# HD95 and volume


def test_hd95_of_two_voxels_is_their_distance_in_millimetres():
    first = box((8, 8, 8), (1, 2), (1, 2), (1, 2))
    second = box((8, 8, 8), (4, 5), (5, 6), (1, 2))

    assert hd95(first, second) == pytest.approx(5.0)  # 3 and 4 voxels apart
    assert hd95(first, second, spacing=(2.0, 0.5, 7.0)) == pytest.approx(math.hypot(6, 2))


def test_hd95_of_two_parallel_planes_is_the_gap():
    assert hd95(box((9, 5, 5), (1, 2), (0, 5), (0, 5)), box((9, 5, 5), (4, 5), (0, 5), (0, 5)), (1.5, 1, 1)) == 4.5


def test_hd95_forgives_a_twentieth_of_the_surface_where_the_full_hausdorff_distance_would_not():
    target = box((3, 1, 200), (0, 1), (0, 1), (0, 100))
    prediction = target.copy()
    prediction[0, 0, 150] = True  # one stray voxel in 101

    assert hd95(prediction, target) == 0.0


def test_hd95_takes_the_larger_of_the_two_directions():
    small = box((1, 1, 100), (0, 1), (0, 1), (0, 1))
    long = box((1, 1, 100), (0, 1), (0, 1), (0, 41))  # 0 to 40 mm from the small one; the 95th percentile is 38

    assert hd95(small, long) == pytest.approx(38.0)
    assert hd95(long, small) == pytest.approx(38.0)


def test_hd95_empty_rule_is_zero_for_two_empty_masks_and_nan_for_one():
    empty, full = np.zeros((3, 3, 3)), np.ones((3, 3, 3))

    assert hd95(empty, empty) == 0.0
    assert math.isnan(hd95(empty, full))
    assert math.isnan(hd95(full, empty))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.9, 1.0, 5.0)])
def test_hd95_agrees_with_all_pairs_and_with_distance_transforms_on_random_masks(spacing):
    rng = np.random.default_rng(2)
    for share in (0.01, 0.1, 0.6, 0.98):
        prediction, target = rng.random((2, 9, 10, 8)) < share
        computed = hd95(prediction, target, spacing)
        assert computed == pytest.approx(hd95_by_all_pairs(prediction, target, spacing), rel=1e-5)
        assert computed == pytest.approx(hd95_by_distance_transform(prediction, target, spacing), rel=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.5, 1.0)])
@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        pytest.param(box((6, 7, 8)), box((6, 7, 8), (2, 4), (2, 5), (3, 4)), id="full against a box"),
        pytest.param(box((6, 7, 8), (0, 1), (0, 1), (0, 1)), box((6, 7, 8)), id="corner voxel against full"),
        pytest.param(box((6, 7, 8), (0, 3)), box((6, 7, 8), (2, 6)), id="both touch the border"),
        pytest.param(box((6, 7, 8), (5, 6), (6, 7), (7, 8)), box((6, 7, 8), (0, 1), (0, 1), (0, 1)), id="two corners"),
    ],
)
def test_hd95_agrees_with_all_pairs_on_degenerate_masks(prediction, target, spacing):
    assert hd95(prediction, target, spacing) == pytest.approx(hd95_by_all_pairs(prediction, target, spacing), rel=1e-5)


def test_hd95_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hd95(box((4, 4, 4), (0, 2)), box((4, 4, 4), (1, 2)))


def test_hd95_of_flat_masks_takes_two_spacings():
    assert hd95(box((9, 9), (1, 2), (1, 2)), box((9, 9), (1, 2), (4, 5)), spacing=(1, 2)) == 6.0


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, math.nan, 1), (1, math.inf, 1)])
def test_a_spacing_that_makes_no_sense_is_refused(spacing):
    mask = np.ones((3, 3, 3), dtype=bool)
    with pytest.raises(ValueError, match="spacing must be 3 positive numbers"):
        hd95(mask, mask, spacing)
    with pytest.raises(ValueError, match="spacing must be 3 positive numbers"):
        volume_cm3(mask, spacing)


def test_volume_is_the_number_of_voxels_times_their_size():
    mask = box((20, 20, 20), (0, 10), (0, 10), (0, 10))

    assert volume_cm3(mask) == 1.0
    assert volume_cm3(mask, spacing=(0.5, 1.0, 3.0)) == pytest.approx(1.5)
    assert volume_cm3(torch.zeros(4, 4, 4)) == 0.0
