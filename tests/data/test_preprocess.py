"""From a folder of patients to a cache: what is in it, what is reused, and what happens when something goes wrong."""

import errno
import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import weakref
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import emcad_lib
from emcad_lib.data import preprocess as preprocess_module
from emcad_lib.data.brats import MODALITIES, PatientError
from emcad_lib.data.cache import CACHE_VERSION, Cache
from emcad_lib.data.preprocess import preprocess
from emcad_lib.files import CourseError, read_json, sha256, write_json

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "preprocess.py"
NAMES = [f"BraTS20_Training_{number:03d}" for number in range(1, 7)]


@pytest.fixture
def patients(tiny_patients, tmp_path):
    """A folder of four tiny patients."""
    tiny_patients(tmp_path / "patients", 4)
    return tmp_path / "patients"


@pytest.fixture
def cache(tmp_path):
    """Where the tests' cache goes."""
    return tmp_path / "cache"


def prepare(patients, cache, **settings):
    return preprocess(patients, cache, **{"workers": 1, **settings})


def file_of(patients, number, word):
    return patients / NAMES[number - 1] / f"{NAMES[number - 1]}_{word}.nii.gz"


def rewrite(path, change):
    """Change a NIfTI file's voxels in place."""
    image = nib.load(path)
    nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine).to_filename(path)


def content(folder):
    """The hash of every file under ``folder``, without records, which know when a source was changed, and leftovers."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "record.json" and not path.name.startswith(".")
    }


# What is in a cache


def test_a_cache_holds_the_z_scores_of_the_files_and_their_tumours(patients, cache):
    prepare(patients, cache)

    stored = Cache(cache)
    for number in (1, 2, 3, 4):
        images = np.stack([nib.load(file_of(patients, number, word)).get_fdata() for word in MODALITIES])
        labels = nib.load(file_of(patients, number, "seg")).get_fdata()
        (i0, i1), (j0, j1), (k0, k1) = stored.manifest["patients"][NAMES[number - 1]]["box"]
        for channel in range(4):
            brain = images[channel] > 0
            z = (images[channel] - images[channel][brain].mean()) / images[channel][brain].std()
            codes = np.round(z.clip(-5, 5) * 25.4 + 128) * brain
            cropped = codes[i0:i1, j0:j1, k0:k1].transpose(2, 1, 0)
            off = stored.images(NAMES[number - 1])[:, channel] - cropped
            assert np.abs(off).max() <= 1  # where rounding falls the other way
            assert np.count_nonzero(off) < 20
        tumour = np.select([labels == 2, labels == 1, labels == 4], [1, 3, 7])
        np.testing.assert_array_equal(stored.regions(NAMES[number - 1]), tumour[i0:i1, j0:j1, k0:k1].transpose(2, 1, 0))


def test_the_manifest_says_what_was_made_from_what(patients, cache):
    report = prepare(patients, cache, seed=5)

    manifest = read_json(cache / "manifest.json")
    assert report.prepared == list(manifest["patients"]) == NAMES[:4]
    assert (manifest["version"], manifest["library"], manifest["split_seed"]) == (
        CACHE_VERSION,
        emcad_lib.__version__,
        5,
    )
    record = manifest["patients"][NAMES[0]]
    flair = nib.load(file_of(patients, 1, "flair")).get_fdata()
    labels = nib.load(file_of(patients, 1, "seg")).get_fdata()
    assert record["box"] == [[5, 43], [2, 46], [1, 23]]  # where conftest's egg of a brain lies
    assert record["slices"] == 22
    assert record["shape"] == [48, 48, 24]
    assert record["spacing"] == [1, 1, 1]
    assert record["tumour_slices"] == np.count_nonzero(labels.any(axis=(0, 1)))
    assert list(record["mean"]) == list(record["std"]) == list(MODALITIES)
    assert record["mean"]["flair"] == pytest.approx(flair[flair > 0].mean(), rel=1e-6)
    assert record["std"]["flair"] == pytest.approx(flair[flair > 0].std(), rel=1e-6)
    assert record["sources"] == {path.name: sha256(path) for path in (patients / NAMES[0]).iterdir()}


def test_no_path_and_no_time_gets_into_the_manifest(patients, cache, tmp_path):
    prepare(patients, cache)
    shutil.copytree(patients, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    prepare(tmp_path / "elsewhere", tmp_path / "second cache")

    assert str(tmp_path) not in (cache / "manifest.json").read_text()
    assert Cache(cache).hash == Cache(tmp_path / "second cache").hash


def test_several_workers_write_what_one_writes(patients, cache, tmp_path):
    prepare(patients, cache)
    report = preprocess(patients, tmp_path / "parallel", workers=2)

    assert report.prepared == NAMES[:4]
    assert content(tmp_path / "parallel") == content(cache)


@pytest.mark.parametrize(
    ("naming", "suffix"),
    [("2018", ".nii"), ("2021", ".nii.gz"), ("2023", ".nii.gz"), ("kaggle", ".nii"), ("decathlon", ".nii.gz")],
)
def test_the_same_brains_give_the_same_slices_in_every_naming(tiny_patients, tmp_path, patients, cache, naming, suffix):
    tiny_patients(tmp_path / "other", 3, naming=naming, suffix=suffix)
    prepare(patients, cache)
    report = prepare(tmp_path / "other", tmp_path / "other cache")

    assert report.problems == []
    one, other = Cache(cache), Cache(tmp_path / "other cache")
    for ours, theirs in zip(one.names()[:3], other.names(), strict=True):
        np.testing.assert_array_equal(one.images(ours), other.images(theirs))
        np.testing.assert_array_equal(one.regions(ours), other.regions(theirs))


def test_the_decathlons_images_and_labels_are_told_apart_though_they_have_one_name(tiny_patients, tmp_path, cache):
    (image,) = tiny_patients(tmp_path / "msd", 1, naming="decathlon")
    prepare(tmp_path / "msd", cache)

    (record,) = Cache(cache).manifest["patients"].values()
    labels = image.parents[1] / "labelsTr" / image.name
    assert record["sources"] == {f"imagesTr/{image.name}": sha256(image), f"labelsTr/{image.name}": sha256(labels)}


def test_a_limit_takes_the_first_patients_by_name_and_can_be_raised_later(patients, cache):
    assert prepare(patients, cache, limit=2).prepared == NAMES[:2]
    assert Cache(cache).names() == NAMES[:2]

    report = prepare(patients, cache, limit=9)

    assert (report.reused, report.prepared) == (NAMES[:2], NAMES[2:4])
    assert Cache(cache).names() == NAMES[:4]


def test_another_seed_changes_the_split_and_prepares_nothing_anew(patients, cache):
    prepare(patients, cache, seed=0)
    splits = {seed: None for seed in range(8)}
    for seed in splits:
        assert prepare(patients, cache, seed=seed).prepared == []
        splits[seed] = tuple(Cache(cache).names("test"))

    assert len(set(splits.values())) > 1


# What is reused


def test_a_second_call_reuses_everything_changes_nothing_and_shows_no_bar(patients, cache, capsys):
    prepare(patients, cache)
    assert "Prepare patients: 100%" in capsys.readouterr().out
    before, times = content(cache), {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}

    report = prepare(patients, cache)

    assert (report.prepared, report.reused) == ([], NAMES[:4])
    assert content(cache) == before
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == times
    assert capsys.readouterr().out == ""


def brighten_a_voxel(patients):
    def change(voxels):
        voxels[24, 24, 12] += 100
        return voxels

    rewrite(file_of(patients, 2, "t1"), change)


def grow_the_tumour(patients):
    rewrite(file_of(patients, 2, "seg"), lambda labels: np.where(labels == 0, labels, 2).astype(np.uint8))


@pytest.mark.parametrize("change", [brighten_a_voxel, grow_the_tumour])
def test_a_patient_whose_file_has_changed_is_prepared_anew_and_the_others_are_not(patients, cache, change):
    prepare(patients, cache)
    before = content(cache)
    change(patients)

    report = prepare(patients, cache)

    assert report.prepared == [NAMES[1]]
    assert report.reused == [NAMES[0], *NAMES[2:4]]
    changed = {path for path, digest in content(cache).items() if before[path] != digest}
    array = "images.npy" if change is brighten_a_voxel else "regions.npy"
    assert changed == {"manifest.json", f"patients/{NAMES[1]}/{array}"}


def test_a_change_that_keeps_a_files_size_is_noticed(tiny_patients, tmp_path, cache):
    patients = tmp_path / "patients"
    tiny_patients(patients, 2, suffix=".nii")
    prepare(patients, cache)
    path = file_of(patients, 1, "t2").with_suffix("")
    size = path.stat().st_size
    rewrite(path, lambda voxels: voxels // 2 + 1)
    assert path.stat().st_size == size

    assert prepare(patients, cache).prepared == [NAMES[0]]


def test_a_copy_of_the_patients_with_other_times_is_recognised_by_its_hashes(patients, cache, tmp_path, monkeypatch):
    prepare(patients, cache)
    for path in patients.rglob("*.nii.gz"):
        os.utime(path, ns=(0, 0))

    assert prepare(patients, cache).reused == NAMES[:4]

    # The new times are remembered: next time, nothing needs to be read at all.
    monkeypatch.setattr(preprocess_module, "sha256", None)
    assert prepare(patients, cache).reused == NAMES[:4]


def older_version(folder):
    write_json(folder / "record.json", {**read_json(folder / "record.json"), "version": CACHE_VERSION - 1})


def broken_record(folder):
    (folder / "record.json").write_text("[1, 2")


def other_record(folder):
    write_json(folder / "record.json", [])


def no_record(folder):
    (folder / "record.json").unlink()


def no_array(folder):
    (folder / "images.npy").unlink()


def short_array(folder):
    path = folder / "regions.npy"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [older_version, broken_record, other_record, no_record, no_array, short_array])
def test_what_is_not_whole_or_not_of_this_version_is_prepared_anew(patients, cache, damage):
    prepare(patients, cache)
    before = content(cache)
    damage(cache / "patients" / NAMES[2])

    report = prepare(patients, cache)

    assert report.prepared == [NAMES[2]]
    assert content(cache) == before
    assert prepare(patients, cache).prepared == []


def test_patients_who_are_gone_are_no_longer_in_the_manifest(patients, cache):
    prepare(patients, cache)
    shutil.rmtree(patients / NAMES[0])

    prepare(patients, cache)

    assert Cache(cache).names() == NAMES[1:4]


# Patients with faults


def hole(patients):
    rewrite(file_of(patients, 2, "t1"), lambda voxels: np.where(voxels == voxels.max(), np.nan, voxels))


def truncated(patients):
    path = file_of(patients, 2, "t2")
    path.write_bytes(path.read_bytes()[:-100])


def empty(patients):
    file_of(patients, 2, "flair").write_bytes(b"")


def constant(patients):
    rewrite(file_of(patients, 2, "t1ce"), lambda voxels: (voxels > 0).astype(np.int16) * 7)


def unknown_label(patients):
    rewrite(file_of(patients, 2, "seg"), lambda labels: np.where(labels == 4, 3, labels).astype(np.uint8))


def missing_image(patients):
    file_of(patients, 2, "t1").unlink()


def missing_segmentation(patients):
    file_of(patients, 2, "seg").unlink()


def twice(patients):
    shutil.copytree(patients / NAMES[1], patients / "copies" / NAMES[1])


def wide_pixels(patients):
    for path in (patients / NAMES[1]).iterdir():
        image = nib.load(path)
        nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([0.8, 1, 1, 1])).to_filename(path)


FAULTS = {
    hole: ("t1.nii.gz", "NaN or infinity in 1 voxel"),
    truncated: ("t2.nii.gz", "truncated"),
    empty: ("flair.nii.gz", "the file is empty"),
    constant: ("t1ce.nii.gz", "The t1ce image has the same value everywhere in the brain"),
    unknown_label: ("seg.nii.gz", "unknown label values: found 3"),
    missing_image: ("t1.nii.gz", "missing: t1"),
    missing_segmentation: ("seg.nii.gz", "the segmentation is missing"),
    twice: ("flair.nii.gz", "2 patients have this name"),
    wide_pixels: ("flair.nii.gz", "its pixels measure 0.80 x 1.00 mm"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_patient_with_a_fault_is_left_out_by_name_and_file_and_the_others_go_on(patients, cache, fault):
    fault(patients)

    report = prepare(patients, cache)

    (problem,) = report.problems
    file, what = FAULTS[fault]
    assert isinstance(problem, PatientError)
    assert (problem.patient, problem.file.name) == (NAMES[1], f"{NAMES[1]}_{file}")
    assert what in str(problem)
    assert str(problem).count("\n") == 0
    assert report.prepared == Cache(cache).names() == [NAMES[0], *NAMES[2:4]]
    assert not (cache / "patients" / NAMES[1]).exists()


def test_faults_come_back_from_worker_processes_and_are_told_again_the_next_time(patients, cache):
    hole(patients)
    constant_too = file_of(patients, 4, "t2")
    rewrite(constant_too, lambda voxels: (voxels > 0).astype(np.int16))

    first, second = (preprocess(patients, cache, workers=2) for _ in range(2))

    assert [str(problem) for problem in first.problems] == [str(problem) for problem in second.problems]
    assert [problem.patient for problem in first.problems] == [NAMES[1], NAMES[3]]
    assert (second.prepared, second.reused) == ([], [NAMES[0], NAMES[2]])


def test_a_patient_who_had_a_fault_and_was_mended_joins_the_others(patients, cache):
    whole = file_of(patients, 2, "t2").read_bytes()
    truncated(patients)
    prepare(patients, cache)
    file_of(patients, 2, "t2").write_bytes(whole)

    assert prepare(patients, cache).prepared == [NAMES[1]]
    assert Cache(cache).names() == NAMES[:4]


def test_a_patient_whose_file_broke_later_leaves_the_cache(patients, cache):
    prepare(patients, cache)
    truncated(patients)

    report = prepare(patients, cache)

    assert [problem.patient for problem in report.problems] == [NAMES[1]]
    assert Cache(cache).names() == [NAMES[0], *NAMES[2:4]]


def test_if_no_patient_can_be_used_each_is_named_and_no_manifest_is_written(patients, cache):
    for number in (1, 2, 3, 4):
        file_of(patients, number, "t1").write_bytes(gzip.compress(b"no image"))

    with pytest.raises(CourseError, match="there is no patient that can be used") as error:
        prepare(patients, cache)

    assert all(f"Patient {name}, {name}_t1.nii.gz: this is not a NIfTI image" in str(error.value) for name in NAMES[:4])
    with pytest.raises(CourseError, match="this cache isn't finished"):
        Cache(cache)


@pytest.mark.parametrize("setting", ["workers", "limit"])
def test_fewer_than_one_worker_or_patient_makes_no_sense(patients, cache, setting):
    with pytest.raises(CourseError, match=f"{setting} must be 1 or more, not 0"):
        prepare(patients, cache, **{setting: 0})


def test_a_folder_that_does_not_exist_leaves_no_cache_behind(tmp_path, cache):
    with pytest.raises(CourseError, match="there is no such folder"):
        prepare(tmp_path / "nowhere", cache)

    assert not cache.exists()


def test_a_file_where_the_cache_should_go_is_named(patients, cache):
    cache.write_text("in the way")

    with pytest.raises(CourseError, match="cache: can't be written .*Choose another folder"):
        prepare(patients, cache)


# Full disks, kills, and other processes


def test_a_full_disk_is_named_and_leaves_earlier_patients_whole(patients, cache, monkeypatch):
    write_bytes, written = Path.write_bytes, []

    def until_full(path, data):
        written.append(path)
        if len(written) == 6:  # two arrays a patient: the third patient's regions
            write_bytes(path, bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        with pytest.raises(CourseError, match=f"{NAMES[2]}: the disk is full. Nothing was overwritten"):
            prepare(patients, cache)

    assert sorted(path.name for path in (cache / "patients").iterdir()) == NAMES[:2]
    report = prepare(patients, cache)
    assert (report.reused, report.prepared) == (NAMES[:2], NAMES[2:4])


def test_a_full_disk_while_patients_are_added_leaves_the_cache_as_it_was(patients, cache, monkeypatch):
    prepare(patients, cache, limit=3)
    before = content(cache)

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(CourseError, match=f"{NAMES[3]}: the disk is full"):
            prepare(patients, cache)

    assert content(cache) == before
    assert Cache(cache).names() == NAMES[:3]


# Runs preprocess again and again, each time in a process of its own that is killed (kill -9) at its Nth step: in the
# middle of writing a file, just before a rename, just after it. Then it looks at what such a process leaves behind.
KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from emcad_lib.data import preprocess as module
from emcad_lib.data.cache import Cache
from emcad_lib.files import CourseError

patients, cache, fresh = sys.argv[1:]
write_bytes, write_text, replace = Path.write_bytes, Path.write_text, os.replace

def run_and_die_at(last_step):
    steps = 0
    def step():
        nonlocal steps
        steps += 1
        if steps == last_step:
            os.kill(os.getpid(), signal.SIGKILL)
    def bytes_in_two_steps(path, data):
        write_bytes(path, bytes(data)[: len(data) // 2])
        step()
        return write_bytes(path, data)
    def text_in_two_steps(path, text, **settings):
        write_text(path, text[: len(text) // 2], **settings)
        step()
        return write_text(path, text, **settings)
    def watched_replace(*paths):
        step()
        replace(*paths)
        step()
    Path.write_bytes, Path.write_text, os.replace = bytes_in_two_steps, text_in_two_steps, watched_replace
    module.preprocess(patients, cache, workers=1)

def look():
    try:
        opened = Cache(cache)
    except CourseError:
        return  # unfinished, and it says so
    for name in opened.names():
        opened.images(name), opened.regions(name)

for clean in (True, False):
    for last_step in range(1, 1000):
        if clean:
            shutil.rmtree(cache, ignore_errors=True)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            run_and_die_at(last_step)
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        look()
        if os.WIFEXITED(ended):
            assert os.WEXITSTATUS(ended) == 0
            break
        assert os.WTERMSIG(ended) == signal.SIGKILL
        if clean:
            folders = [path.name for path in Path(cache, "patients").iterdir() if not path.name.startswith(".")]
            report = module.preprocess(patients, cache, workers=1)
            assert report.reused == sorted(folders), (last_step, report, folders)
            same = all(path.read_bytes() == Path(fresh, path.relative_to(cache)).read_bytes()
                       for path in Path(cache).glob("patients/B*/*.npy"))
            assert same and Cache(cache).hash == Cache(fresh).hash, last_step
    print("steps:", last_step)
"""


def test_kill_9_at_any_step_leaves_no_half_patient_and_the_next_call_finishes(tiny_patients, tmp_path):
    tiny_patients(tmp_path / "patients", 2)
    prepare(tmp_path / "patients", tmp_path / "fresh")
    arguments = [tmp_path / "patients", tmp_path / "killed", tmp_path / "fresh"]

    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_STEP, *map(str, arguments)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    # Each patient: three files, two renames of two steps; the manifest: one file and a rename. And one that ends well.
    clean, going_on = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("steps"))
    assert clean == 2 * (3 + 4) + 3 + 1
    assert content(tmp_path / "killed") == content(tmp_path / "fresh")


def test_what_a_killed_process_left_is_removed_an_hour_later_and_not_before(patients, cache):
    prepare(patients, cache)
    places = (cache / "manifest.json", cache / "patients" / NAMES[0], cache / "patients" / NAMES[0] / "record.json")
    old, young = ([path.parent / f".writing-{process}-{path.name}" for path in places] for process in (1, 2))
    for folder, file in ((old[1], old[1] / "images.npy"), (young[1], young[1] / "images.npy")):
        folder.mkdir()
        file.write_bytes(b"half")
    for file in (old[0], old[2], young[0], young[2]):
        file.write_text("half")
    for leftover in old:
        os.utime(leftover, (0, 0))

    prepare(patients, cache)

    assert not any(leftover.exists() for leftover in old)
    assert all(leftover.exists() for leftover in young)  # perhaps another process is at it right now


def test_a_patient_that_another_process_has_just_put_there_is_taken_as_it_is(patients, cache, tmp_path, monkeypatch):
    prepare(patients, tmp_path / "other")
    replacing = preprocess_module.replacing

    @contextmanager
    def a_moment_too_late(path):
        with replacing(path) as beside:
            yield beside
            shutil.copytree(tmp_path / "other" / "patients" / path.name, path)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

    monkeypatch.setattr(preprocess_module, "replacing", a_moment_too_late)
    prepare(patients, cache)

    assert content(cache) == content(tmp_path / "other")


def test_two_processes_at_once_make_one_whole_cache(patients, cache, tmp_path):
    prepare(patients, tmp_path / "alone")
    command = [sys.executable, SCRIPT, patients, "--out", cache, "--workers", "1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]

    for process in both:
        _, error = process.communicate()
        assert process.returncode == 0, error

    assert content(cache) == content(tmp_path / "alone")


def test_no_more_patients_are_in_work_than_there_are_workers(patients, cache, monkeypatch):
    """Memory doesn't grow with the number of patients: a scan is gone before the next one is read."""
    scans, read_scan = [], preprocess_module.read_scan

    def watched(patient):
        assert all(scan() is None for scan in scans)
        scan = read_scan(patient)
        scans.append(weakref.ref(scan))
        return scan

    monkeypatch.setattr(preprocess_module, "read_scan", watched)
    prepare(patients, cache)

    assert len(scans) == 4


# The command line


@pytest.fixture(scope="module")
def main():
    """The main function of data_scripts/preprocess.py."""
    spec = importlib.util.spec_from_file_location("preprocess_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_the_command_says_what_it_did(main, patients, cache, capsys):
    assert main([str(patients), "--out", str(cache), "--workers", "1", "--seed", "3", "--limit", "3"]) == 0
    assert f"3 patients prepared, 0 already there: {cache}" in capsys.readouterr().out
    assert Cache(cache).manifest["split_seed"] == 3

    assert main([str(patients), "--out", str(cache), "--workers", "1"]) == 0
    assert f"1 patients prepared, 3 already there: {cache}" in capsys.readouterr().out


def test_the_command_lists_what_it_left_out_and_exits_with_1_having_prepared_the_others(main, patients, cache, capsys):
    hole(patients)
    file_of(patients, 4, "seg").unlink()

    assert main([str(patients), "--out", str(cache), "--workers", "1"]) == 1

    errors = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in errors] == [f"Left out: Patient {name}" for name in (NAMES[1], NAMES[3])]
    assert Cache(cache).names() == [NAMES[0], NAMES[2]]


def test_the_command_gives_a_message_and_no_traceback_when_nothing_can_be_done(main, tmp_path, cache, capsys):
    (tmp_path / "empty").mkdir()

    assert main([str(tmp_path / "empty"), "--out", str(cache)]) == 1

    assert "empty: no patient found" in capsys.readouterr().err
