"""Prediction with models whose answer is known: the identity, a constant, one that looks at the left only."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from emcad_lib import create_model, load_weights
from emcad_lib.data.brats import MODALITIES, find_patient, read_scan
from emcad_lib.data.planes import PLANES, recut
from emcad_lib.data.prepare import STEP
from emcad_lib.data.preprocess import dequantise, normalise, quantise
from emcad_lib.data.slices import Cache, SliceDataset, fit_canvas
from emcad_lib.evaluate import inference
from emcad_lib.evaluate.inference import known_regions, predict, predict_planes, segment_scan
from emcad_lib.files import CourseError
from emcad_lib.model.weights import REFERENCE_WEIGHTS

METADATA = {"modalities": json.dumps(MODALITIES), "regions": json.dumps(["whole"]), "image_size": "192"}


class Stub(nn.Module):
    """A network that computes its logits by ``function``, and remembers what it was shown."""

    def __init__(self, function, **metadata):
        super().__init__()
        self.function = function
        self.metadata = {**METADATA, **metadata}
        self.seen = []

    def forward(self, x):
        self.seen.append(x.clone())
        return [torch.zeros(1), self.function(x)]  # coarse to fine: the last one is the prediction


def identity(**metadata):
    return Stub(lambda x: x[:, :1], **metadata)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def scan(tiny_patients, tmp_path):
    return read_scan(find_patient(tiny_patients(tmp_path, patients=1)[0]))


def flair_of(scan):
    return normalise(scan.images)[0]


# Slices to probabilities


@pytest.mark.parametrize("shape", [(1, 1), (37, 150), (192, 192), (193, 150), (240, 301)])
def test_probabilities_of_the_identity_come_back_on_the_own_pixels_of_slices_of_any_size(shape):
    z = np.random.default_rng(0).normal(size=(3, 4, *shape)).astype(np.float32)

    probabilities = predict(identity(), z)

    assert probabilities.shape == (3, 1, *shape)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[:, 0], sigmoid(z[:, 0]), rtol=1e-5)


@pytest.mark.parametrize("image_size", [96, 160, 192, 224])
def test_the_network_sees_each_slice_as_it_did_in_training(image_size):
    z = np.random.default_rng(1).normal(size=(2, 4, 141, 130)).astype(np.float32)
    model = identity()

    predict(model, z, image_size)

    (seen,) = model.seen
    assert seen.shape == (2, 4, image_size, image_size)
    torch.testing.assert_close(seen, fit_canvas(torch.from_numpy(z), image_size))


def test_the_network_sees_a_patient_of_the_cache_as_the_training_dataset_gives_it(tiny_cache):
    cache = Cache(tiny_cache)
    name = cache.names()[0]
    dataset = SliceDataset(cache, None, image_size=64, modalities=("flair", "t1ce", "t2"), patients=[name])
    model = identity(modalities=json.dumps(["flair", "t1ce", "t2"]))

    predict(model, cache.images(name), image_size=64, batch_size=100)

    torch.testing.assert_close(model.seen[0], torch.stack([x for x, _ in dataset]))


@pytest.mark.parametrize("image_size", [96, 160])
def test_what_is_found_lies_where_it_was_also_when_the_network_works_at_another_pixel_size(image_size):
    rows, columns = np.mgrid[:151, :120]
    z = np.full((1, 4, 151, 120), -8.0, dtype=np.float32)
    z[0, 0] += 16 * np.exp(-((rows - 40.3) ** 2 + (columns - 77.8) ** 2) / 200)

    found = predict(identity(), z, image_size)[0, 0]

    found = np.where(np.hypot(rows - 40, columns - 78) < 25, found, 0)  # away from the canvas, which is 0 and not -8
    assert np.average(rows, weights=found) == pytest.approx(40.3, abs=0.1)
    assert np.average(columns, weights=found) == pytest.approx(77.8, abs=0.1)


def test_a_brain_larger_than_the_training_canvas_is_seen_whole():
    z = np.full((1, 4, 240, 140), -9.0, dtype=np.float32)
    z[:, :, :4], z[:, :, -4:] = 9.0, 9.0  # something to find at the outermost edges
    model = identity()

    found = predict(model, z, image_size=96)[0, 0, :, 4:-4]

    assert model.seen[0].shape[2:] == (128, 96)  # 240 mm need 120 pixels of 2 mm, and so the next multiple of 32
    assert (found[:3] > 0.9).all()
    assert (found[-3:] > 0.9).all()
    assert (found[8:-8] < 0.1).all()


def test_pixels_of_another_size_in_millimetres_are_shown_at_the_size_of_the_training():
    model = identity()

    probabilities = predict(model, np.ones((1, 4, 100, 100), dtype=np.float32), image_size=96, pixel_mm=(3.0, 1.0))

    assert model.seen[0].shape[2:] == (160, 96)  # 300 mm down need 150 pixels of 2 mm
    assert model.seen[0][0, 0].sum() == pytest.approx(150 * 50, rel=0.02)
    assert probabilities.shape == (1, 1, 100, 100)


def test_bytes_of_the_cache_are_predicted_like_the_z_scores_that_they_stand_for():
    z = np.random.default_rng(2).normal(size=(2, 4, 40, 50)).astype(np.float32)
    z[:, :, :10] = 0
    stored = quantise(z, z != 0)
    stored.flags.writeable = False  # as a memory map is

    np.testing.assert_array_equal(predict(identity(), stored), predict(identity(), np.asarray(dequantise(stored))))


def test_tensors_are_predicted_like_arrays():
    z = np.random.default_rng(3).normal(size=(2, 4, 40, 50)).astype(np.float32)

    np.testing.assert_array_equal(predict(identity(), torch.from_numpy(z)), predict(identity(), z))


def test_the_batch_size_does_not_change_the_result():
    torch.manual_seed(0)
    model = create_model(in_channels=2)
    slices = np.random.default_rng(4).normal(size=(5, 2, 30, 40)).astype(np.float32)

    one_by_one = predict(model, slices, image_size=32, batch_size=1)
    together = predict(model, slices, image_size=32, batch_size=16)

    assert one_by_one.std() > 0
    np.testing.assert_allclose(one_by_one, together, atol=1e-5)


def test_the_shipped_network_gives_what_it_gives_slice_by_slice_and_unfolded(tiny_cache):
    model = load_weights(REFERENCE_WEIGHTS).eval()
    cache = Cache(tiny_cache)
    name = cache.names()[0]
    shown = SliceDataset(cache, None, image_size=96, patients=[name])  # on the canvas, as the network sees them
    expected = []
    with torch.inference_mode():
        for x, _ in shown:
            fine = F.interpolate(
                torch.sigmoid(model(x[None])[-1]), size=(192, 192), mode="bilinear", antialias=True, align_corners=False
            )
            expected.append(fine[0].numpy())

    found = predict(model, cache.images(name))

    top, left = ((192 - length) // 2 for length in found.shape[2:])
    inside = np.stack(expected)[..., top : top + found.shape[2], left : left + found.shape[3]]
    assert inside.max() - inside.min() > 0.1
    np.testing.assert_allclose(found, inside, atol=1e-4)


def test_a_network_of_the_course_is_folded_before_it_predicts(monkeypatch):
    model, seen = create_model("pvt_v2_b0"), []
    monkeypatch.setattr(inference, "_probability", lambda network, x: seen.append(network) or x[:, :1])

    predict(model, np.zeros((1, 3, 32, 32), dtype=np.float32), image_size=32)

    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in seen[0].modules())


def test_every_module_is_back_in_its_own_mode_even_after_an_error():
    model = create_model()
    model.train()
    model.encoder.eval()  # as when the encoder is frozen
    modes = [module.training for module in model.modules()]

    predict(model, np.zeros((1, 3, 32, 32), dtype=np.float32), image_size=32)
    assert [module.training for module in model.modules()] == modes

    with pytest.raises(ValueError, match="The network takes slices of shape"):
        predict(model, np.zeros((1, 5, 32, 32), dtype=np.float32), image_size=32)
    assert [module.training for module in model.modules()] == modes


def test_predicting_uses_evaluation_mode_and_leaves_the_running_statistics_alone():
    model = create_model()
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    predict(model, np.ones((2, 3, 32, 32), dtype=np.float32), image_size=32)

    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_channels_that_the_metadata_name_are_picked_in_their_order():
    model = identity(modalities=json.dumps(["t2", "flair"]))
    z = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1) * np.ones((1, 4, 192, 192), dtype=np.float32)

    predict(model, z)
    predict(model, z, modalities=("t1",))

    assert model.seen[0][0, :, 0, 0].tolist() == [3.0, 0.0]
    assert model.seen[1][0, :, 0, 0].tolist() == [1.0]


def test_weights_that_name_more_modalities_than_the_network_takes_are_refused():
    model = create_model(in_channels=2)

    with pytest.raises(CourseError, match="takes 2 channels, but 3 modalities are named .*Name those"):
        predict(model, np.zeros((1, 4, 8, 8), dtype=np.float32), image_size=32, modalities=["flair", "t1", "t2"])


def test_any_other_number_of_channels_is_taken_as_it_is():
    model = identity()

    predict(model, np.zeros((1, 7, 40, 40), dtype=np.float32))

    assert model.seen[0].shape[1] == 7


def test_a_model_that_gives_a_single_map_instead_of_four_will_do():
    model = nn.Identity()

    probabilities = predict(model, np.zeros((1, 2, 40, 40), dtype=np.float32), image_size=64)

    assert probabilities.shape == (1, 2, 40, 40)
    assert (probabilities == 0.5).all()


def test_flipping_averages_with_the_mirrored_slice():
    columns = torch.arange(192) - 95.5
    lopsided = Stub(lambda x: x[:, :1] * columns / 40)
    z = np.random.default_rng(5).normal(size=(1, 4, 192, 192)).astype(np.float32)

    plain, averaged = predict(lopsided, z), predict(lopsided, z, flip=True)

    mirrored = predict(lopsided, z[..., ::-1])[..., ::-1]
    np.testing.assert_allclose(averaged, (plain + mirrored) / 2, atol=1e-6)
    assert np.abs(plain - averaged).max() > 0.1


@pytest.mark.parametrize(("show", "bars"), [(True, 1), (False, 0)])
def test_a_progress_bar_is_shown_only_when_asked_for(show, bars, capsys):
    predict(identity(), np.zeros((3, 4, 8, 8), dtype=np.float32), batch_size=1, show=show)

    assert capsys.readouterr().out.count("3/3") == bars


@pytest.mark.parametrize("missing", ["modalities", "image_size"])
def test_a_model_that_does_not_say_what_it_needs_is_refused_by_name(missing):
    model = identity()
    del model.metadata[missing]

    with pytest.raises(CourseError, match=f"doesn't say on which {missing} it was trained.*give {missing}="):
        predict(model, np.zeros((1, 4, 8, 8), dtype=np.float32))


def test_a_modality_that_does_not_exist_is_refused():
    with pytest.raises(CourseError, match="modalities must be one or more of flair, t1, t1ce, t2"):
        predict(identity(), np.zeros((1, 4, 8, 8), dtype=np.float32), modalities=["flair", "pet"])


@pytest.mark.parametrize("size", [0, 96.5, "96"])
def test_an_image_size_that_is_none_is_refused_with_one_that_is(size):
    with pytest.raises(CourseError, match=f"image_size must be a whole number of pixels .*such as 96, not {size!r}"):
        predict(identity(), np.zeros((1, 4, 8, 8), dtype=np.float32), image_size=size)


@pytest.mark.parametrize("shape", [(4, 8, 8), (0, 4, 8, 8), (1, 4, 0, 8)])
def test_what_is_not_a_stack_of_slices_is_refused(shape):
    with pytest.raises(ValueError, match=r"images are \(slices, channels, height, width\), one at"):
        predict(identity(), np.zeros(shape, dtype=np.float32))


def test_a_network_that_gives_nan_is_refused_and_not_taken_for_no_tumour():
    with pytest.raises(CourseError, match="The network gives NaN: take other weights, .*--learning-rate"):
        predict(Stub(lambda x: x[:, :1] * math.nan), np.zeros((1, 4, 8, 8), dtype=np.float32))


# A scan to region bits


def test_a_segmentation_lies_on_the_grid_of_the_scan_voxel_for_voxel(scan):
    bits = segment_scan(identity(), scan)  # flair above the brain's mean is "tumour"

    flair = flair_of(scan)
    sure = np.abs(flair) > 0.05  # storing z-scores as bytes moves them a little
    assert bits.shape == scan.images.shape[1:]
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(bits[sure], (flair > 0)[sure])
    assert 0 < bits.sum() < (flair != 0).sum()


def test_a_scan_with_voxels_longer_from_front_to_back_is_shown_in_its_true_shape(scan):
    affine = scan.affine @ np.diag([1.0, 8.0, 1.0, 1.0])
    model = identity()

    bits = segment_scan(model, dataclasses.replace(scan, affine=affine))

    height = np.ptp(np.flatnonzero(scan.images.any(axis=(0, 1, 3)))) + 1
    assert model.seen[0].shape[2:] == (math.ceil(8 * height / 32) * 32, 192)
    assert bits.shape == scan.images.shape[1:]


def test_outside_the_brain_and_in_slices_without_brain_there_is_no_tumour(scan):
    everything = Stub(lambda x: torch.full_like(x[:, :1], 9.0))

    bits = segment_scan(everything, scan)

    np.testing.assert_array_equal(bits, scan.images.any(axis=0))
    assert not bits[:, :, 0].any()


def test_the_threshold_decides_which_probability_is_enough(scan):
    third = Stub(lambda x: torch.full_like(x[:, :1], math.log(0.3 / 0.7)))

    assert not segment_scan(third, scan).any()
    assert segment_scan(third, scan, threshold=0.29).any()
    assert not segment_scan(third, scan, threshold=0.31).any()


@pytest.mark.parametrize(("region", "bits"), [("whole", 0b001), ("core", 0b011), ("enhancing", 0b111)])
def test_a_voxel_of_an_inner_region_belongs_to_the_outer_ones_too(scan, region, bits):
    regions = ["enhancing", "whole", "core"]  # in the order of the model's outputs
    logits = [9.0 if name == region else -9.0 for name in regions]
    only_one = Stub(
        lambda x: torch.stack([torch.full_like(x[:, 0], logit) for logit in logits], dim=1),
        regions=json.dumps(regions),
    )

    assert set(np.unique(segment_scan(only_one, scan))) == {0, bits}


def test_each_output_sets_its_own_region(scan):
    core_where_bright = Stub(
        lambda x: torch.cat([torch.full_like(x[:, :1], 9.0), x[:, :1]], dim=1),
        regions=json.dumps(["whole", "core"]),
    )

    bits = segment_scan(core_where_bright, scan)

    flair = flair_of(scan)
    assert (bits[flair > 0.05] == 0b011).all()
    assert (bits[flair < -0.05] == 0b001).all()


@pytest.mark.parametrize("threshold", [0, 1, -0.5, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(scan, threshold):
    with pytest.raises(CourseError, match="threshold is a probability: choose one above 0 and below 1"):
        segment_scan(identity(), scan, threshold)


def test_regions_must_be_known_and_as_many_as_the_outputs(scan):
    with pytest.raises(CourseError, match="The model gives 1 map.* 2 regions are named. Name one for each"):
        segment_scan(identity(), scan, regions=["whole", "core"])
    with pytest.raises(CourseError, match="regions must be one or more of whole, core, enhancing"):
        segment_scan(identity(), scan, regions=["tumour"])
    with pytest.raises(CourseError, match="doesn't say on which regions"):
        known_regions(nn.Identity())


# Three planes


def test_one_plane_alone_is_an_ordinary_prediction_cut_that_way():
    z = np.random.default_rng(0).normal(size=(20, 4, 30, 40)).astype(np.float32)

    for plane in PLANES:
        found = predict_planes(identity(), z, planes=[plane])
        np.testing.assert_allclose(found[:, 0], sigmoid(z[:, 0]), atol=1e-4)


def test_planes_are_averaged_and_each_is_seen_in_its_own_cut():
    z = np.random.default_rng(0).normal(size=(20, 4, 30, 40)).astype(np.float32)
    model = Stub(lambda x: torch.full_like(x[:, :1], float(len(x)) / 10 - 2))  # as many as there are slices

    found = predict_planes(model, z, planes=PLANES, batch_size=100)

    expected = np.mean([sigmoid(count / 10 - 2) for count in (20, 30, 40)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_planes_are_those_of_the_models_training_unless_others_are_wanted():
    z = np.random.default_rng(0).normal(size=(20, 4, 30, 40)).astype(np.float32)

    for metadata, planes, cuts in (({}, None, 1), ({"planes": '["coronal", "axial"]'}, None, 2), ({}, PLANES, 3)):
        model = identity(**metadata)
        predict_planes(model, z, planes=planes, batch_size=100)
        assert len(model.seen) == cuts

    with pytest.raises(CourseError, match="planes must be one or more of axial, coronal, sagittal"):
        predict_planes(identity(), z, planes=["oblique"])


def test_thick_voxels_are_brought_to_the_networks_pixel_size_in_every_plane():
    z = np.random.default_rng(0).normal(size=(10, 4, 30, 40)).astype(np.float32)
    model = identity()

    predict_planes(model, z, spacing=(1.0, 1.0, 5.0), planes=["coronal"], batch_size=100)

    brain = (model.seen[0][0, 0] != 0).nonzero()
    height, width = (brain.max(0).values - brain.min(0).values + 1).tolist()
    assert height == pytest.approx(50, abs=8)  # 10 slices of 5 mm
    assert width == pytest.approx(40, abs=2)


def test_a_scan_is_segmented_without_its_crumbs(scan):
    flair = flair_of(scan)
    kept = segment_scan(identity(), scan)
    swept = segment_scan(identity(), scan, crumbs=1.0)

    assert (kept > 0).any()
    pieces, count = ndimage.label(kept > 0)
    assert count > 1
    assert (swept > 0).sum() == np.bincount(pieces.ravel())[1:].max()
    assert flair[swept > 0].min() > -STEP  # a byte is as near as a slice is kept


def test_slices_left_out_of_the_other_planes_are_interpolated():
    z = np.ones((20, 4, 41, 30), dtype=np.float32) * np.linspace(-2, 2, 41, dtype=np.float32)[:, None]
    planes = ["axial", "coronal"]
    model = identity()

    found = predict_planes(model, z, planes=planes, every=4, batch_size=100)

    expected = predict_planes(identity(), z, planes=planes)
    assert [len(batch) for batch in model.seen] == [20, 11]
    np.testing.assert_allclose(found[:, :, ::4], expected[:, :, ::4], atol=1e-4)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # over four slices a sigmoid is all but straight
    nearest = predict_planes(identity(), z[:, :, ::4].repeat(4, axis=2)[:, :, :41], planes=planes)
    assert np.abs(found - expected).max() < np.abs(nearest - expected).max() / 10


def test_the_last_slice_is_always_looked_at():
    z = np.ones((20, 4, 6, 30), dtype=np.float32) * np.arange(1, 7, dtype=np.float32)[:, None]
    model = identity()

    found = predict_planes(model, z, planes=["axial", "coronal"], every=1000, batch_size=100)

    assert [len(batch) for batch in model.seen] == [20, 2]
    coronal = 2 * found - sigmoid(z[:, :1])
    np.testing.assert_allclose(coronal[:, :, [0, 5]], sigmoid(z[:, :1, [0, 5]]), atol=1e-4)


@pytest.mark.parametrize("every", [0, -2])
def test_every_how_many_slices_must_be_one_or_more(every):
    with pytest.raises(CourseError, match=f"every must be 1 for each slice.*not {every}"):
        predict_planes(identity(), np.ones((2, 4, 8, 8), dtype=np.float32), every=every)


class Normalising(nn.Module):
    """A network that is nothing but a batch normalisation."""

    metadata = METADATA

    def __init__(self):
        super().__init__()
        self.layer = nn.BatchNorm2d(1)

    def forward(self, x):
        return self.layer(x[:, :1])


def test_adapted_statistics_are_the_patients_whatever_the_batch_size():
    z = 3 + np.random.default_rng(0).normal(size=(60, 4, 192, 192)).astype(np.float32)
    z += np.linspace(0, 2, 60, dtype=np.float32)[:, None, None, None]  # the head is brighter towards its top
    model = Normalising().eval()

    first, *others = [predict(model, z, adapt=1, batch_size=size) for size in (1, 16, 100)]

    logits = np.log(first / (1 - first))
    assert logits.mean() == pytest.approx(0, abs=0.02)
    assert logits.std() == pytest.approx(1, abs=0.02)
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)
    assert model.layer.running_mean == 0


def test_a_lone_slice_can_be_adapted_to():
    model = create_model("pvt_v2_b0").eval()

    found = predict(model, np.random.default_rng(0).normal(size=(1, 3, 32, 32)), image_size=32, adapt=0.5)

    assert np.isfinite(found).all()


def test_a_crumb_of_the_whole_tumour_is_none_of_its_core_either(scan):
    def large_and_small(x):
        whole, core = torch.full_like(x[:, :1], -9.0), torch.full_like(x[:, :1], -9.0)
        brain = x[:, :1] != 0
        left = torch.arange(x.shape[-1]) < x.shape[-1] // 2
        whole[brain & left] = 9
        rows, columns = torch.nonzero(brain[0, 0] & ~left, as_tuple=True)
        if len(columns) and columns.max() > x.shape[-1] // 2 + 3:
            far = columns.argmax()
            whole[0, 0, rows[far], columns[far]] = core[0, 0, rows[far], columns[far]] = 9
        return torch.cat([whole, core], dim=1)

    model = Stub(large_and_small, regions=json.dumps(["whole", "core"]))
    with_crumbs = segment_scan(model, scan, batch_size=1)
    without = segment_scan(model, scan, batch_size=1, crumbs=0.2)

    assert (with_crumbs == 3).any()
    assert set(np.unique(without)) == {0, 1}


# Networks that see neighbouring slices


def upper(**metadata):
    """Sees a slice in FLAIR, the one below and the one above, and answers with the one above."""
    known = {"modalities": json.dumps(["flair"]), "neighbours": "1"}
    return Stub(lambda x: x[:, 2:3], **{**known, **metadata})


def test_a_network_of_neighbouring_slices_is_shown_them_as_in_training(tiny_cache):
    cache = Cache(tiny_cache)
    name = cache.names("test")[0]
    dataset = SliceDataset(cache, "test", 192, ("flair",), patients=[name], neighbours=1)
    model = upper()

    predict(model, cache.images(name), batch_size=5)

    torch.testing.assert_close(torch.cat(model.seen), dataset.__getitems__(range(len(dataset)))[0])


def test_only_some_slices_are_predicted_from_their_true_neighbours():
    images = np.random.default_rng(0).normal(size=(9, 4, 192, 192)).astype(np.float32)

    found = predict(upper(), images, only=np.array([0, 3, 8]))

    np.testing.assert_allclose(found[:, 0], sigmoid(images[[1, 4, 8], 0]), rtol=1e-5)


def test_every_third_slice_of_a_plane_has_its_neighbours_and_not_the_next_that_is_looked_at():
    images = np.random.default_rng(0).normal(size=(7, 4, 192, 192)).astype(np.float32)
    model = upper(planes=json.dumps(["axial", "coronal"]))

    predict_planes(model, images, every=3)

    axial, coronal = len(images), torch.cat(model.seen)[len(images) :]
    slices = fit_canvas(recut(images, "coronal")[:, 0], 192)
    assert axial + len(coronal) == 7 + len([*range(0, 191, 3), 191])
    torch.testing.assert_close(coronal[1], torch.from_numpy(slices[[2, 3, 4]]))
    torch.testing.assert_close(coronal[-1], torch.from_numpy(slices[[190, 191, 191]]))


def test_weights_with_neighbours_that_do_not_fit_their_channels_are_refused():
    model = create_model(in_channels=3)
    model.metadata = {**METADATA, "modalities": json.dumps(["flair", "t1ce", "t2"]), "neighbours": "1"}

    with pytest.raises(CourseError, match="takes 3 channels"):
        predict(model, np.zeros((2, 4, 32, 32), dtype=np.float32))
