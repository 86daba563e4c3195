"""Slices by number: what is on the canvas, how it's resampled, and which slices an epoch shows."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.cache import CACHE_VERSION, Cache
from emcad_lib.data.planes import recut
from emcad_lib.data.prepare import dequantise
from emcad_lib.data.slices import EpochSampler, SliceDataset, fit_canvas
from emcad_lib.files import CourseError, write_json


def make_cache(folder, shapes, split="train"):
    """A cache of patients of noise: name -> (slices, height, width)."""
    random = np.random.default_rng(0)
    records = {}
    for name, (slices, height, width) in shapes.items():
        place = folder / "patients" / name
        place.mkdir(parents=True)
        np.save(place / "images.npy", random.integers(0, 256, (slices, 4, height, width), dtype=np.uint8))
        np.save(place / "regions.npy", random.choice(np.uint8([0, 1, 3, 7]), (slices, height, width)))
        records[name] = {"split": split, "slices": slices, "box": [[3, 3 + width], [5, 5 + height], [7, 7 + slices]]}
    write_json(folder / "manifest.json", {"version": CACHE_VERSION, "library": "0", "patients": records})
    return Cache(folder)


@pytest.fixture
def cache(tmp_path):
    """Odd and even sizes, a single slice, and a brain that is too large for 192 mm."""
    return make_cache(tmp_path, {"A": (3, 151, 120), "B": (1, 9, 8), "C": (4, 170, 193), "D": (2, 240, 231)})


def whole_batch(batch):
    """For a DataLoader: the dataset has put the batch together already."""
    return batch


def halve(images):
    """Images (..., 192, 192) at half the size, by the weights (1, 3, 3, 1) / 8 of a triangle two pixels wide."""
    for axis in (-1, -2):
        images = np.moveaxis(images, axis, 0)
        before, after = np.roll(images, 1, axis=0), np.roll(images, -2, axis=0)
        images = (before + 3 * images + 3 * np.roll(images, -1, axis=0) + after)[::2] / 8
        images = np.moveaxis(images, 0, axis)
    return images


def on_canvas(stack, side):
    """Arrays (..., H, W) in the middle of a square of zeros, or the middle of them if they are too large."""
    room = side + 100  # more than any is too large by, so that nothing needs to be cut before it lies in the middle
    canvas = np.zeros((*stack.shape[:-2], room, room), dtype=stack.dtype)
    top, left = (
        50 + (side - length) // 2 if length <= side else 50 - (length - side) // 2 for length in stack.shape[-2:]
    )
    canvas[..., top : top + stack.shape[-2], left : left + stack.shape[-1]] = stack
    return canvas[..., 50 : 50 + side, 50 : 50 + side]


# What the dataset gives


@pytest.mark.parametrize("image_size", [192, 224, 240])
def test_from_192_pixels_on_the_slices_themselves_lie_in_the_middle_of_the_canvas(cache, image_size):
    dataset = SliceDataset(cache, "train", image_size, modalities=("t2", "flair"), regions=("core", "whole"))

    assert len(dataset) == 10
    for index in (0, 3, 7, 9):  # the first of A, the only one of B, the last of C, the last of D
        name, _, number = dataset.where(index)
        x, y = dataset[index]
        images, bits = (
            on_canvas(np.array(part), image_size) for part in (cache.images(name)[number], cache.regions(name)[number])
        )
        np.testing.assert_array_equal(x.numpy(), dequantise(images[[MODALITIES.index("t2"), 0]]))
        np.testing.assert_array_equal(y.numpy(), np.stack([(bits & 2) > 0, (bits & 1) > 0]))


def test_at_96_pixels_images_are_filtered_and_a_pixel_is_tumour_where_half_of_it_is(cache):
    dataset = SliceDataset(cache, "train", 96)

    x, y = dataset.__getitems__([1, 5])

    for place, (name, number) in enumerate([("A", 1), ("C", 1)]):
        images, bits = (
            on_canvas(np.array(part), 192) for part in (cache.images(name)[number], cache.regions(name)[number])
        )
        expected = halve(dequantise(images[[0, 2, 3]]))
        inner = (slice(None), slice(1, -1), slice(1, -1))  # at the very edge the filter is another one
        np.testing.assert_allclose(x[place].numpy()[inner], expected[inner], atol=1e-5)
        share = (bits & 1).reshape(96, 2, 96, 2).mean(axis=(1, 3))
        np.testing.assert_array_equal(y[place, 0].numpy(), share >= 0.5)


@pytest.mark.parametrize("image_size", [64, 96, 160, 224])
def test_a_batch_is_the_slices_one_by_one_in_the_order_asked_for(cache, image_size):
    dataset = SliceDataset(cache, "train", image_size, modalities=MODALITIES, regions=("whole", "enhancing"))
    numbers = [7, 0, 3, 0, 9]

    x, y = dataset.__getitems__(numbers)

    assert x.shape == (5, 4, image_size, image_size)
    assert y.shape == (5, 2, image_size, image_size)
    assert x.dtype == y.dtype == torch.float32
    assert x.is_contiguous()
    assert y.is_contiguous()
    assert set(y.unique().tolist()) == {0, 1}
    for place, number in enumerate(numbers):
        torch.testing.assert_close(dataset[number][0], x[place])
        torch.testing.assert_close(dataset[number][1], y[place])


def test_the_defaults_are_flair_t1ce_t2_and_the_whole_tumour(tiny_cache):
    cache = Cache(tiny_cache)
    default = SliceDataset(cache, "val", 192)
    everything = SliceDataset(cache, "val", 192, MODALITIES, ("whole", "core", "enhancing"))

    (x, y), (all_x, all_y) = default[11], everything[11]

    assert torch.equal(x, all_x[[0, 2, 3]])
    assert torch.equal(y, all_y[:1])
    assert 0 < all_y[2].sum() < all_y[1].sum() < all_y[0].sum()  # enhancing in core in whole


def test_outside_the_brain_it_is_exactly_zero_and_inside_it_is_not(tiny_cache):
    cache = Cache(tiny_cache)
    x, y = SliceDataset(cache, "train", 192, MODALITIES)[5]
    name = cache.names("train")[0]
    brain = on_canvas(cache.images(name)[5] > 0, 192)

    np.testing.assert_array_equal(x.numpy() != 0, brain)
    assert not y[0].numpy()[~brain.any(axis=0)].any()


def test_slices_without_tumour_have_empty_masks(tiny_cache):
    cache = Cache(tiny_cache)
    dataset = SliceDataset(cache, None, 64)

    _, y = dataset.__getitems__(range(len(dataset)))

    for index in range(len(dataset)):
        name, _, number = dataset.where(index)
        if not cache.regions(name)[number].any():
            assert not y[index].any()


def test_every_slice_of_every_patient_of_the_split_is_there_once(tiny_cache):
    cache = Cache(tiny_cache)
    dataset = SliceDataset(cache, "train", 32)

    places = [dataset.where(index) for index in range(len(dataset))]

    assert places == [
        (name, "axial", number) for name in cache.names("train") for number in range(len(cache.images(name)))
    ]


def test_the_patients_come_in_the_order_they_are_named_in(cache):
    dataset = SliceDataset(cache, "train", 32, patients=["C", "A"])

    assert [dataset.where(index) for index in (0, 3, 4, 6)] == [
        ("C", "axial", 0),
        ("C", "axial", 3),
        ("A", "axial", 0),
        ("A", "axial", 2),
    ]
    assert len(dataset) == 7


@pytest.mark.parametrize("index", [-1, 10])
def test_a_slice_that_is_not_there_is_an_index_error(cache, index):
    dataset = SliceDataset(cache, "train", 32)

    with pytest.raises(IndexError, match=f"no slice {index}: there are 10"):
        dataset[index]


def test_the_dataset_itself_can_be_looped_over(cache):
    assert len(list(SliceDataset(cache, "train", 32))) == 10


def test_workers_give_the_same_batches_and_none_of_the_arrays_travels_to_them(cache):
    dataset = SliceDataset(cache, "train", 192)
    dataset[0]
    assert len(pickle.dumps(dataset)) < 10_000

    here, there = (DataLoader(dataset, 4, num_workers=workers, collate_fn=whole_batch) for workers in (0, 1))

    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_a_damaged_file_is_named_before_the_first_epoch_and_not_in_the_middle(cache):
    (cache.folder / "patients" / "C" / "regions.npy").unlink()

    with pytest.raises(CourseError, match=r"Patient C, .*regions.npy: this file of the cache is missing"):
        SliceDataset(cache, "train", 96)
    assert len(SliceDataset(cache, "train", 96, patients=["A", "B"])) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modalities": ("flair", "pet")}, "no modality 'pet'. Choose from: flair, t1, t1ce, t2"),
        ({"regions": ("tumour",)}, "no region 'tumour'. Choose from: whole, core, enhancing"),
        ({"patients": ["A", "Z"]}, r"not among .* the split 'train': Z\. Choose from Cache\.names"),
        ({"patients": []}, "the split 'train' holds no patient"),
        ({"split": "test"}, "the split 'test' holds no patient.*Prepare three patients or more"),
        ({"split": "training"}, "no split 'training'"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(cache, settings, message):
    with pytest.raises(CourseError, match=message):
        SliceDataset(cache, **{"split": "train", "image_size": 32, **settings})


# The canvas


def test_arrays_and_tensors_of_any_leading_shape_are_fitted_alike():
    slices = np.random.default_rng(0).normal(size=(2, 3, 151, 120)).astype(np.float32)

    array, tensor = fit_canvas(slices, 96), fit_canvas(torch.from_numpy(slices), 96)

    assert array.shape == (2, 3, 96, 96)
    np.testing.assert_array_equal(array, tensor.numpy())
    np.testing.assert_array_equal(fit_canvas(slices[1, 2], 96), array[1, 2])


def test_the_dataset_and_fit_canvas_agree(cache):
    x, y = SliceDataset(cache, "train", 160, MODALITIES)[4]

    np.testing.assert_array_equal(fit_canvas(dequantise(cache.images("C")[0]), 160), x.numpy())
    np.testing.assert_array_equal(fit_canvas(cache.regions("C")[0] > 0, 160), y[0].numpy())


def test_a_brain_larger_than_the_canvas_loses_as_much_on_each_side():
    slices = np.arange(200.0)[:, None] + np.zeros(10)

    rows = fit_canvas(slices, 192)[:, 96]

    assert (rows[0], rows[-1]) == (4, 195)


def test_a_mask_at_160_pixels_is_set_where_half_of_each_pixel_is():
    mask = np.zeros((192, 192), dtype=bool)
    mask[:4] = True  # 4 of 192 rows are 3 1/3 of 160
    mask[100:101] = True  # row 83 of 160 goes from 99.6 to 100.8: two thirds of it

    fitted = fit_canvas(mask, 160)

    assert fitted.dtype == bool
    assert np.flatnonzero(fitted.all(axis=1)).tolist() == [0, 1, 2, 83]
    assert np.flatnonzero(fitted.any(axis=1)).tolist() == [0, 1, 2, 83]


def test_exactly_half_a_pixel_is_enough():
    mask = np.zeros((192, 192), dtype=bool)
    mask[10, 20:22] = True  # two of the four
    mask[40, 40] = True  # one of the four

    fitted = fit_canvas(mask, 96)

    assert np.argwhere(fitted).tolist() == [[5, 10]]


@pytest.mark.parametrize("image_size", [32, 64, 96, 128, 160])
def test_resampling_keeps_a_tumours_place_and_area(image_size):
    rows, columns = np.mgrid[:192, :192]
    mask = (rows - 70.2) ** 2 + (columns - 110.9) ** 2 < 30**2

    fitted = fit_canvas(mask, image_size)

    scale = 192 / image_size
    assert fitted.sum() * scale**2 == pytest.approx(mask.sum(), rel=0.03)
    middle = (np.argwhere(fitted).mean(axis=0) + 0.5) * scale - 0.5
    np.testing.assert_allclose(middle, (70.2, 110.9), atol=0.75)


def test_a_small_image_is_filtered_and_not_picked_from():
    stripes = np.tile(np.array([[1.0], [-1.0]], dtype=np.float32), (96, 192))

    assert np.abs(fit_canvas(stripes, 96)[2:-2]).max() < 1e-6  # every other row would be 1 everywhere


def test_bytes_are_refused_because_0_means_outside_and_must_not_be_mixed_with_grey():
    with pytest.raises(TypeError, match="uint8"):
        fit_canvas(np.zeros((2, 10, 10), dtype=np.uint8), 96)


# Which slices an epoch shows


def test_an_epoch_of_the_same_seed_shows_the_same_slices_also_in_a_new_sampler():
    first, resumed = EpochSampler(100, 30, seed=1), EpochSampler(100, 30, seed=1)
    epochs = []
    for epoch in range(3):
        first.set_epoch(epoch)
        epochs.append(list(first))
    resumed.set_epoch(2)

    assert list(resumed) == list(resumed) == epochs[2]
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(EpochSampler(100, 30, seed=2))


def test_an_epoch_shows_no_slice_twice_and_over_many_epochs_all_of_them_alike():
    sampler = EpochSampler(50, 20, seed=0)
    counts = np.zeros(50)
    for epoch in range(200):
        sampler.set_epoch(epoch)
        numbers = list(sampler)
        assert len(numbers) == len(set(numbers)) == len(sampler) == 20
        counts[numbers] += 1

    assert counts.min() > 55  # 80 expected, with a standard deviation of 7
    assert counts.max() < 105


@pytest.mark.parametrize("asked", [0, 10, 11, 1000])
def test_zero_or_more_than_there_are_is_all_of_them(asked):
    sampler = EpochSampler(10, asked, seed=0)

    assert sorted(sampler) == list(range(10))
    assert len(sampler) == 10


def test_the_slices_of_an_epoch_stay_what_they_were_when_the_library_changes():
    sampler = EpochSampler(20, 5, seed=7)
    sampler.set_epoch(3)

    assert list(sampler) == [8, 5, 2, 12, 19]


def test_slices_of_other_planes_follow_those_of_the_first_and_hold_the_same_voxels(tiny_cache):
    cache = Cache(tiny_cache)
    name = cache.names("train")[0]
    planes = ("axial", "sagittal", "coronal")
    depth, _, height, width = cache.images(name).shape

    dataset = SliceDataset(cache, "train", 192, patients=[name], planes=planes)

    assert len(dataset) == depth + width + height
    assert dataset.where(depth) == (name, "sagittal", 0)
    assert dataset.where(depth + width + height - 1) == (name, "coronal", height - 1)
    x, y = dataset.__getitems__(list(range(len(dataset))))
    for part in (x.split([depth, width, height]), y.split([depth, width, height])):
        sums = [float(block.sum()) for block in part]
        assert sums == pytest.approx([sums[0]] * 3, rel=1e-4)
    number = int(y[depth : depth + width].sum((1, 2, 3)).argmax())
    expected = recut(cache.regions(name), "sagittal")[number] & 1
    np.testing.assert_array_equal(y[depth + number, 0].sum(1).nonzero().numel(), (expected.sum(1) > 0).sum())


def test_planes_need_voxels_of_a_millimetre(tiny_cache):
    cache = Cache(tiny_cache)
    name = cache.names("train")[0]
    cache.manifest["patients"][name]["spacing"] = [1.0, 1.0, 5.0]

    assert len(SliceDataset(cache, "train", 32, patients=[name])) > 0
    with pytest.raises(CourseError, match=rf"{name}: coronal slices have pixels of 5.00 x 1.00 mm"):
        SliceDataset(cache, "train", 32, patients=[name], planes=("axial", "coronal"))


@pytest.mark.parametrize("neighbours", [1, 2])
def test_neighbours_come_from_below_to_above_and_at_the_ends_the_last_slice_again(cache, neighbours):
    single = SliceDataset(cache, "train", 96, patients=["A", "C"])
    stacked = SliceDataset(cache, "train", 96, patients=["A", "C"], neighbours=neighbours)
    x, y = single.__getitems__(range(7))
    ends = [(0, 2)] * 3 + [(3, 6)] * 4  # first and last slice of each one's patient

    stacks, same_y = stacked.__getitems__(range(7))

    assert stacks.shape == (7, 3 * (2 * neighbours + 1), 96, 96)
    assert torch.equal(same_y, y)
    for number, (first, last) in enumerate(ends):
        for place, step in enumerate(range(-neighbours, neighbours + 1)):
            expected = x[min(max(number + step, first), last)]
            assert torch.equal(stacks[number, 3 * place : 3 * place + 3], expected)


def test_neighbours_in_another_plane_are_those_of_that_plane(tiny_cache):
    cache = Cache(tiny_cache)
    patients = cache.names("train")[:1]
    stacked = SliceDataset(cache, "train", 32, patients=patients, planes=("sagittal",), neighbours=1)
    single = SliceDataset(cache, "train", 32, patients=patients, planes=("sagittal",))

    x, _ = stacked[10]

    assert torch.equal(x, torch.cat([single[number][0] for number in (9, 10, 11)]))
