"""How fast slices come: the baseline loads the same voxels, and every way gets its row."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emcad_lib.data.cache import Cache
from emcad_lib.data.slices import SliceDataset


@pytest.fixture
def loading(script):
    return script("loading")


def test_the_baselines_batch_holds_the_same_voxels_as_the_datasets(loading, tiny_cache, tmp_path):
    cache = Cache(loading.copy_cache(Cache(tiny_cache), 2, tmp_path / "cache"))
    dataset = SliceDataset(cache, None, loading.IMAGE_SIZE)
    numbers = [3, 11, len(dataset) - 4]

    paths = loading.write_npz(cache, tmp_path / "npz")
    (x, y), (expected_x, expected_y) = (
        loading.load_npz([paths[number] for number in numbers]), dataset.__getitems__(numbers)
    )  # fmt: skip

    assert len(paths) == len(dataset)
    assert x.shape == expected_x.shape
    assert y.sum() == expected_y.sum() > 0
    for image, expected in zip(x.flatten(0, 1), expected_x.flatten(0, 1), strict=True):
        assert torch.equal(image[image != 0].sort().values, expected[expected != 0].sort().values)


def test_each_way_is_measured_and_the_baseline_is_one(loading, tiny_cache, tmp_path):
    out = tmp_path / "table.csv"

    assert loading.main([str(tiny_cache), "--patients", "2", "--repeats", "1", "--out", str(out)]) == 0

    ways, *_ = np.genfromtxt(out, delimiter=",", dtype=str, skip_header=1).T
    assert ways.tolist() == ["npz", "cache (first epoch)", "cache"]
    table = loading.measure(Cache(tiny_cache), patients=1, repeats=1, baseline_slices=8)
    assert table.loc["npz", "times npz (slices per second)"] == 1
    assert (table["slices"] == len(Cache(tiny_cache).images(Cache(tiny_cache).names()[0]))).all()
    assert not list(Path(tiny_cache).parent.glob("tmp*"))


def test_a_folder_without_a_cache_is_refused_in_a_sentence(loading, tmp_path, capsys):
    assert loading.main([str(tmp_path)]) == 1
    assert "there is no cache here" in capsys.readouterr().err
