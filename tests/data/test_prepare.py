"""From a scan to bytes: z-scores, the crop, and which way is up."""

import pickle

import numpy as np
import pytest
import torch

from emcad_lib.data.brats import Grid, Scan
from emcad_lib.data.prepare import (
    ALMOST_ZERO,
    STEP,
    FlatImage,
    brain_box,
    dequantise,
    normalise,
    prepare_patient,
    quantise,
)  # fmt: skip
from emcad_lib.files import CourseError

ALL_CODES = np.arange(256, dtype=np.uint8)


def make_scan(images, regions=None):
    images = np.asarray(images, dtype=np.float32)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    return Scan(images, regions, affine, Grid(images.shape[1:], affine, header=None))


def random_scan(shape, box, seed=0):
    """A scan of noise inside ``box`` and 0 elsewhere, with random region bits inside."""
    random = np.random.default_rng(seed)
    inside = tuple(slice(*ends) for ends in box)
    images, regions = np.zeros((4, *shape), dtype=np.float32), np.zeros(shape, dtype=np.uint8)
    images[(slice(None), *inside)] = random.uniform(100, 900, images[(slice(None), *inside)].shape)
    regions[inside] = random.choice([0, 1, 3, 7], regions[inside].shape)
    return make_scan(images, regions)


def volumes(values):
    """Four times the same image, of shape (values, 1, 1)."""
    return np.broadcast_to(np.array(values, dtype=np.float32)[:, None, None], (4, len(values), 1, 1)).copy()


# z-scores


def test_z_scores_are_taken_over_the_voxels_that_are_not_zero():
    z = normalise(volumes([0, 1, 3, 0, 0]))  # over 1 and 3: mean 2, standard deviation 1

    assert z.dtype == np.float32
    np.testing.assert_array_equal(z[0, :, 0, 0], [0, -1, 1, 0, 0])


def test_each_modality_is_measured_over_its_own_part_of_the_brain():
    images = volumes([0, 1, 3, 5, 7])  # mean 4, variance 5
    images[0, 3:] = 0  # FLAIR ends earlier: mean 2, variance 1

    z = normalise(images)

    np.testing.assert_array_equal(z[0, :, 0, 0], [0, -1, 1, 0, 0])
    np.testing.assert_allclose(z[1, :, 0, 0], [0, -3 / 5**0.5, -1 / 5**0.5, 1 / 5**0.5, 3 / 5**0.5], rtol=1e-6)


def test_values_below_zero_are_brain_too():
    np.testing.assert_array_equal(normalise(volumes([0, -3, -1, 0]))[0, :, 0, 0], [0, -1, 1, 0])


def test_z_scores_end_at_five_on_both_sides():
    z = normalise(volumes([100] * 200 + [1000, -800]))  # symmetric: mean 100, and the two are 10 deviations away

    assert z.max() == 5
    assert z.min() == -5


def test_a_large_offset_does_not_cost_precision():
    values = 30_000 + np.arange(2000) % 7
    expected = (values - values.mean()) / values.std()

    np.testing.assert_allclose(normalise(volumes(values))[2, :, 0, 0], expected, atol=2e-3)


def test_the_images_themselves_are_left_alone():
    images = volumes([0, 1, 3])
    before = images.copy()

    normalise(images)

    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("values", [[0, 0, 0], [0, 7, 7, 7], [0.1] * 1000], ids=["zero", "constant", "all constant"])
def test_an_image_without_contrast_is_named(values):
    images = volumes([*range(len(values))])
    images[2] = volumes(values)[0]

    with pytest.raises(FlatImage, match="The t1ce image has the same value everywhere .*Fetch this") as error:
        normalise(images)

    assert error.value.modality == "t1ce"
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # on its way back from a worker process


# Bytes


def test_bytes_run_from_1_at_minus_five_to_255_at_five_and_0_is_outside():
    z = np.array([0, -5, 5, STEP, -STEP, 4.99, 1e-6, -80, 80], dtype=np.float32)

    np.testing.assert_array_equal(quantise(z), [0, 1, 255, 129, 127, 255, 128, 1, 255])


def test_a_voxel_of_the_brain_at_the_very_mean_is_not_taken_for_background():
    code = quantise(np.zeros(2, dtype=np.float32), brain=np.array([True, False]))

    np.testing.assert_array_equal(code, [128, 0])
    assert dequantise(code)[0] == np.float32(ALMOST_ZERO)


def test_what_comes_back_from_a_byte_is_off_by_half_a_step_at_most():
    z = np.linspace(-5, 5, 100_001, dtype=np.float32)
    z = z[z != 0]

    error = np.abs(dequantise(quantise(z)) - z)

    assert error.max() <= 0.0198  # half of 10 / 254, and a little for the middle
    assert error.mean() < 0.01


def test_only_the_byte_0_means_exactly_zero_and_larger_bytes_mean_larger_scores():
    z = dequantise(ALL_CODES)

    assert z.dtype == np.float32
    np.testing.assert_array_equal(np.flatnonzero(z == 0), [0])
    assert (np.diff(z[1:]) > 0).all()
    np.testing.assert_array_equal(quantise(z), ALL_CODES)


def test_tensors_give_what_arrays_give_and_keep_their_bytes():
    codes = torch.from_numpy(ALL_CODES.copy()).reshape(2, 8, 16)

    z = dequantise(codes)

    assert z.dtype == torch.float32
    np.testing.assert_array_equal(z.numpy(), dequantise(ALL_CODES.reshape(2, 8, 16)))
    np.testing.assert_array_equal(codes.numpy().ravel(), ALL_CODES)


# The crop


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((10, 12, 9), ((2, 7), (3, 10), (1, 8))),
        ((10, 12, 9), ((0, 10), (0, 12), (0, 9))),
        ((7, 5, 3), ((1, 2), (4, 5), (0, 2))),
        ((9, 8, 7), ((3, 6), (2, 7), (6, 7))),
    ],
    ids=["inside", "everything", "thin", "one slice"],
)
def test_the_box_is_tight_and_the_slices_are_those_of_the_box(shape, box):
    scan = random_scan(shape, box)

    prepared = prepare_patient(scan)

    (i0, i1), (j0, j1), (k0, k1) = box
    assert prepared.box == brain_box(scan.images) == box
    assert prepared.images.shape == (k1 - k0, 4, j1 - j0, i1 - i0)
    assert prepared.regions.shape == (k1 - k0, j1 - j0, i1 - i0)
    assert prepared.images.flags.c_contiguous
    assert prepared.regions.flags.c_contiguous


def test_every_voxel_is_where_it_was_and_is_the_z_score_of_the_whole_scan():
    scan = random_scan((11, 13, 7), ((2, 9), (1, 12), (2, 6)))
    scan.images[0, :, :, 4:] = 0  # FLAIR covers the lower half only

    prepared = prepare_patient(scan)

    whole = quantise(normalise(scan.images))
    for k, j, i in np.ndindex(4, 11, 7):
        np.testing.assert_array_equal(prepared.images[k, :, j, i], whole[:, i + 2, j + 1, k + 2])
        assert prepared.regions[k, j, i] == scan.regions[i + 2, j + 1, k + 2]


def test_front_is_up_the_patients_right_is_on_the_left_and_the_first_slice_is_the_lowest():
    scan = random_scan((6, 7, 8), ((0, 6), (0, 7), (0, 8)))  # axes run to the left, to the back, and up
    scan.regions[:] = 0
    scan.regions[0, 0, 0] = 1  # rightmost, at the very front, at the bottom
    scan.regions[5, 0, 7] = 3  # leftmost, at the very front, at the top

    regions = prepare_patient(scan).regions

    assert regions[0, 0, 0] == 1
    assert regions[7, 0, 5] == 3
    assert np.count_nonzero(regions) == 2


def test_a_brain_is_where_any_of_the_modalities_is():
    images = np.zeros((4, 6, 6, 6), dtype=np.float32)
    images[0, 1:3, 2:4, 3] = [[1, 2], [3, 4]]
    images[1:, 2:4, 2:4, 4] = [[1, 2], [3, 4]]

    prepared = prepare_patient(make_scan(images))

    assert prepared.box == ((1, 4), (2, 4), (3, 5))
    assert prepared.images[0, 0].any()
    assert not prepared.images[0, 1:].any()


def test_a_scan_without_segmentation_is_prepared_too():
    scan = random_scan((5, 5, 5), ((1, 4), (1, 4), (1, 4)))

    assert prepare_patient(make_scan(scan.images)).regions is None


def test_mean_and_deviation_of_each_modality_are_kept():
    scan = random_scan((5, 5, 5), ((1, 4), (1, 4), (1, 4)))
    inside = scan.images[:, 1:4, 1:4, 1:4].reshape(4, -1).astype(np.float64)

    prepared = prepare_patient(scan)

    np.testing.assert_allclose(prepared.mean, inside.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(prepared.std, inside.std(axis=1), rtol=1e-6)


def test_what_was_made_on_the_slices_goes_back_to_its_place():
    scan = random_scan((11, 13, 7), ((2, 9), (1, 12), (2, 6)))
    prepared = prepare_patient(scan)

    np.testing.assert_array_equal(prepared.restore(prepared.regions, (11, 13, 7)), scan.regions)
    assert prepared.restore(prepared.regions > 0, (11, 13, 7)).dtype == bool


def test_a_scan_without_brain_is_refused():
    with pytest.raises(CourseError, match="no brain in this scan: .*Fetch it again"):
        prepare_patient(make_scan(np.zeros((4, 3, 3, 3))))
