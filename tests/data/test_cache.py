"""Reading a cache, and what is said about one that is damaged, unfinished or of another version."""

import gc
import os
import pickle
import shutil
import weakref

import numpy as np
import pytest

from emcad_lib.data import cache as cache_module
from emcad_lib.data.cache import CACHE_VERSION, Cache
from emcad_lib.files import CourseError, read_json, write_json

NAMES = [f"BraTS20_Training_{number:03d}" for number in range(1, 7)]


@pytest.fixture
def own_cache(tiny_cache, tmp_path):
    """A copy of the cache of six tiny patients, to be damaged."""
    return shutil.copytree(tiny_cache, tmp_path / "cache")


def array_file(folder, file, name=NAMES[0]):
    return folder / "patients" / name / file


def test_a_cache_knows_its_patients_by_split(tiny_cache):
    cache = Cache(tiny_cache)

    splits = [cache.names(split) for split in ("train", "val", "test")]
    assert [len(names) for names in splits] == [4, 1, 1]
    assert sorted(sum(splits, [])) == cache.names() == NAMES
    assert all(cache.manifest["patients"][name]["split"] == "val" for name in cache.names("val"))


def test_arrays_are_read_only_memory_maps_of_slices_and_regions(tiny_cache):
    cache = Cache(str(tiny_cache))
    images, regions = cache.images(NAMES[0]), cache.regions(NAMES[0])

    assert isinstance(images, np.memmap)
    assert isinstance(regions, np.memmap)
    assert not images.flags.writeable
    assert images.dtype == regions.dtype == np.uint8
    assert images.shape == (22, 4, 44, 38)  # the tiny brains' box
    assert regions.shape == (22, 44, 38)


def test_a_file_is_opened_once_however_often_it_is_read(tiny_cache):
    cache = Cache(tiny_cache)

    assert cache.images(NAMES[0]) is cache.images(NAMES[0])


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system can't be asked")
def test_the_system_is_asked_to_fetch_a_file_as_a_whole_when_it_is_opened(tiny_cache, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *what: asked.append((os.fstat(file).st_ino, *what)))

    Cache(tiny_cache).images(NAMES[0])

    files = [array_file(tiny_cache, file).stat().st_ino for file in ("images.npy", "regions.npy")]
    assert asked == [(inode, 0, 0, os.POSIX_FADV_WILLNEED) for inode in files]


def test_a_system_that_cannot_be_asked_reads_all_the_same(tiny_cache, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise", raising=False)

    assert Cache(tiny_cache).images(NAMES[0]).ndim == 4


def test_no_more_than_so_many_patients_are_open_at_a_time(tiny_cache, monkeypatch):
    monkeypatch.setattr(cache_module, "_OPEN_PATIENTS", 2)
    cache = Cache(tiny_cache)
    first = cache.images(NAMES[0])
    others = []
    for name in NAMES[1:]:
        others.append(weakref.ref(cache.images(name)))
        assert cache.images(NAMES[0]) is first  # used all the time, and so kept
    gc.collect()

    assert [other() is not None for other in others] == [False, False, False, False, True]
    np.testing.assert_array_equal(cache.images(NAMES[1]), Cache(tiny_cache).images(NAMES[1]))


def test_a_cache_travels_to_a_worker_without_its_arrays(tiny_cache):
    cache = Cache(tiny_cache)
    for name in NAMES:
        cache.images(name)

    sent = pickle.dumps(cache)

    assert len(sent) < cache.images(NAMES[0]).nbytes
    np.testing.assert_array_equal(pickle.loads(sent).images(NAMES[3]), cache.images(NAMES[3]))
    assert cache.images(NAMES[0]) is cache.images(NAMES[0])  # the sender has kept its own


def test_the_hash_is_that_of_what_went_into_the_cache(tiny_cache, own_cache):
    assert Cache(own_cache).hash == Cache(tiny_cache).hash

    manifest = read_json(own_cache / "manifest.json")
    manifest["patients"][NAMES[2]]["split"] = "elsewhere"
    write_json(own_cache / "manifest.json", manifest)

    assert Cache(own_cache).hash != Cache(tiny_cache).hash


# What can be wrong


def test_a_folder_without_a_cache_is_named_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(CourseError, match="there is no cache here") as error:
        Cache(tmp_path / "nowhere")

    assert f"python data_scripts/preprocess.py DATA_DIR --out {tmp_path / 'nowhere'}" in str(error.value)


def test_a_cache_without_its_manifest_is_not_finished(own_cache):
    (own_cache / "manifest.json").unlink()

    with pytest.raises(CourseError, match="this cache isn't finished. Run: python data_scripts/preprocess.py"):
        Cache(own_cache)


@pytest.mark.parametrize("version", [CACHE_VERSION + 1, 0, None])
def test_a_cache_by_another_version_is_refused_naming_both_and_the_command(own_cache, version):
    manifest = read_json(own_cache / "manifest.json")
    write_json(own_cache / "manifest.json", {**manifest, "version": version, "library": "9.8.7"})

    with pytest.raises(CourseError) as error:
        Cache(own_cache)

    for part in (
        f"version {version} ",
        f"version {CACHE_VERSION}.",
        "9.8.7",
        f"preprocess.py DATA_DIR --out {own_cache}",
    ):
        assert part in str(error.value)


def test_a_manifest_that_is_something_else_is_refused(own_cache):
    write_json(own_cache / "manifest.json", ["no", "manifest"])
    with pytest.raises(CourseError, match="version None .made by emcad_lib unknown."):
        Cache(own_cache)

    (own_cache / "manifest.json").write_text("{")
    with pytest.raises(CourseError, match="manifest.json: this is not readable as JSON .*data_scripts/preprocess.py"):
        Cache(own_cache)


def damage_missing(path):
    path.unlink()


def damage_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_empty(path):
    path.write_bytes(b"")


def damage_text(path):
    path.write_text("This is not an array.")


def damage_shape(path):
    np.save(path, np.load(path)[:-1])


def damage_dtype(path):
    np.save(path, np.load(path).astype(np.int8))


DAMAGES = {
    damage_missing: "is missing",
    damage_short: "is cut short or damaged",
    damage_empty: "is cut short or damaged",
    damage_text: "is cut short or damaged",
    damage_shape: r"holds uint8 \(21, .*where uint8 \(22, ",
    damage_dtype: r"holds int8 .*where uint8",
}


@pytest.mark.parametrize("file", ["images.npy", "regions.npy"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_is_named_with_its_patient_and_the_remedy(own_cache, file, damage):
    path = array_file(own_cache, file)
    damage(path)
    cache = Cache(own_cache)

    with pytest.raises(CourseError, match=DAMAGES[damage]) as error:
        cache.images(NAMES[0]) if file == "images.npy" else cache.regions(NAMES[0])

    assert f"Patient {NAMES[0]}, {path}: " in str(error.value)
    assert "Run again: python data_scripts/preprocess.py" in str(error.value)
    assert cache.images(NAMES[1]).shape == (22, 4, 44, 38)


def test_an_array_full_of_python_objects_is_refused_and_not_run(own_cache):
    np.save(array_file(own_cache, "images.npy"), np.array([print], dtype=object), allow_pickle=True)

    with pytest.raises(CourseError, match="damaged"):
        Cache(own_cache).images(NAMES[0])


def test_unknown_patients_and_splits_are_refused(tiny_cache):
    with pytest.raises(CourseError, match="no patient 'Nobody' in this cache. Choose from Cache.names"):
        Cache(tiny_cache).images("Nobody")
    with pytest.raises(CourseError, match="no split 'training'. Choose one of: train, val, test"):
        Cache(tiny_cache).names("training")
