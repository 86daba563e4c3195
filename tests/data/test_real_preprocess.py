"""Preparing the real patients that EMCAD_BRATS_DIR names."""

from __future__ import annotations

import numpy as np
import pytest

from emcad_lib.data.brats import MODALITIES, find_patients, read_scan
from emcad_lib.data.cache import Cache
from emcad_lib.data.prepare import dequantise
from emcad_lib.data.preprocess import preprocess
from emcad_lib.data.slices import SliceDataset

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cache(brats_dir, tmp_path_factory):
    """The cache of the ten."""
    folder = tmp_path_factory.mktemp("real") / "cache"
    report = preprocess(brats_dir, folder)
    assert report.problems == []
    return Cache(folder)


def test_all_ten_are_prepared_with_at_most_25_megabytes_each(cache):
    assert len(cache.names()) == 10
    assert [len(cache.names(split)) for split in ("train", "val", "test")] == [6, 2, 2]
    for name in cache.names():
        assert cache.images(name).nbytes + cache.regions(name).nbytes < 25e6


def test_no_brain_and_no_tumour_is_lost_and_every_slice_shows_some_brain(cache, brats_dir):
    for patient in find_patients(brats_dir, need_segmentation=True)[0]:
        scan = read_scan(patient)
        images, regions = cache.images(patient.name), cache.regions(patient.name)
        for channel in range(len(MODALITIES)):
            assert np.count_nonzero(images[:, channel]) == np.count_nonzero(scan.images[channel])
        assert np.array_equal(
            np.bincount(regions.ravel(), minlength=8)[1:], np.bincount(scan.regions.ravel(), minlength=8)[1:]
        )
        assert images.any(axis=(1, 2, 3)).all()


def test_z_scores_have_mean_0_and_deviation_1_over_each_modalitys_own_brain(cache):
    for name in cache.names():
        for channel in range(len(MODALITIES)):
            codes = cache.images(name)[:, channel]
            z = dequantise(codes[codes > 0])
            assert abs(z.mean()) < 0.03  # clipping the brightest vessels takes a little off
            assert 0.85 < z.std() < 1.01


def test_the_flair_that_covers_two_thirds_of_a_brain_is_measured_over_these(cache):
    codes = cache.images("Brats18_2013_20_1")
    covered = np.count_nonzero(codes[:, 0]) / np.count_nonzero(codes.any(axis=1))

    assert 0.5 < covered < 0.8
    assert abs(np.median(dequantise(codes[:, 0][codes[:, 0] > 0]))) < 0.5


@pytest.mark.parametrize(("image_size", "too_much"), [(224, 0.0), (160, 0.02), (96, 0.12)])
def test_real_slices_come_out_as_z_scores_and_masks_of_the_tumours_area(cache, image_size, too_much):
    for name in cache.names():
        dataset = SliceDataset(cache, None, image_size, patients=[name])
        x, y = dataset.__getitems__(range(0, len(dataset), 5))

        area = y.sum().item() * (max(192, image_size) / image_size) ** 2  # mm2
        true_area = np.count_nonzero(cache.regions(name)[::5])
        assert x.abs().max() <= 5.001
        # Where four pixels become one, two of them are enough: a few percent too much, more for a small tumour.
        assert true_area * 0.98 <= area <= true_area * (1 + too_much)
