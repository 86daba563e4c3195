"""Phantom patients: same seed, same voxels; the BraTS 2020 format; whole or not there."""

from __future__ import annotations

import copy
import errno
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from emcad_lib.data import phantom as module
from emcad_lib.data.brats import MODALITIES, find_patients, read_scan
from emcad_lib.data.phantom import Phantom, build_phantom, is_finished, make_phantom, make_phantoms, write_phantom
from emcad_lib.data.recipe import draw_recipe
from emcad_lib.files import CourseError

command = runpy.run_path(str(Path(__file__).parents[2] / "data_scripts" / "make_phantom.py"))["main"]


def read(file: Path) -> np.ndarray:
    return np.asanyarray(nib.nifti1.Nifti1Image.from_filename(file).dataobj)


@pytest.fixture(scope="module")
def first() -> Phantom:
    return make_phantom(0, 0)


@pytest.fixture
def made(phantoms: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the first of the session's phantoms, to be harmed."""
    shutil.copytree(phantoms / "Phantom_000", tmp_path / "Phantom_000")
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes patients that are empty, but quick, where only the writing matters."""

    def empty(recipe: dict[str, Any]) -> Phantom:
        return Phantom(np.zeros((4, 24, 24, 15), np.int16), np.zeros((24, 24, 15), np.uint8), recipe)

    monkeypatch.setattr(module, "build_phantom", empty)


def test_patients_are_the_same_voxel_by_voxel_for_any_number_of_workers_and_patients(
    phantoms: Path, tmp_path: Path, first: Phantom
) -> None:
    # The fixture made four of them, as many at once as there are processors.
    make_phantoms(tmp_path, patients=2, workers=1)

    for index in range(2):
        name = f"Phantom_{index:03d}"
        for kind in (*MODALITIES, "seg"):
            file = f"{name}/{name}_{kind}.nii.gz"
            np.testing.assert_array_equal(read(tmp_path / file), read(phantoms / file))
    np.testing.assert_array_equal(first.images[0], read(phantoms / "Phantom_000/Phantom_000_flair.nii.gz"))
    np.testing.assert_array_equal(first.labels, read(phantoms / "Phantom_000/Phantom_000_seg.nii.gz"))


def test_files_are_as_in_brats_2020(phantoms: Path) -> None:
    folder = phantoms / "Phantom_001"

    for kind, stored in (*((modality, np.int16) for modality in MODALITIES), ("seg", np.uint8)):
        image = nib.nifti1.Nifti1Image.from_filename(folder / f"Phantom_001_{kind}.nii.gz")
        assert image.shape == (240, 240, 155)
        assert image.get_data_dtype() == stored
        np.testing.assert_array_equal(image.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
        assert nib.orientations.aff2axcodes(image.affine) == ("L", "P", "S")


def test_the_library_reads_them_as_patients(phantoms: Path) -> None:
    patients, problems = find_patients(phantoms, need_segmentation=True)

    assert [patient.name for patient in patients] == [f"Phantom_{index:03d}" for index in range(4)]
    assert problems == []
    scan = read_scan(patients[0])
    assert scan.images.shape == (4, 240, 240, 155)
    assert scan.regions is not None
    assert scan.regions.any()


def test_brains_are_positive_and_alike_in_all_images_but_for_cuts_and_hold_the_tumour(phantoms: Path) -> None:
    for folder in sorted(phantoms.iterdir()):
        settings = json.loads((folder / f"{folder.name}_recipe.json").read_text())["images"]
        images = {modality: read(folder / f"{folder.name}_{modality}.nii.gz") for modality in MODALITIES}
        labels = read(folder / f"{folder.name}_seg.nii.gz")
        brain = np.any([image > 0 for image in images.values()], axis=0)
        for modality, image in images.items():
            assert image.min() == 0
            assert ((image > 0) == brain).all() or settings[modality]["cut"]
        assert set(np.flatnonzero(np.bincount(labels.ravel()))) <= {0, 1, 2, 4}
        assert not (labels[~brain] != 0).any()
        assert 1000 < brain.sum() / 1000 < 2050


def test_a_tumour_has_the_volume_and_the_parts_that_the_recipe_says(first: Phantom) -> None:
    tumour = first.recipe["tumour"]
    whole = (first.labels > 0).sum()

    assert whole / 1000 == pytest.approx(tumour["whole_cm3"], rel=0.15)
    assert np.isin(first.labels, (1, 4)).sum() / whole == pytest.approx(tumour["core_share"], abs=0.08)
    assert (first.labels == 4).sum() / whole == pytest.approx(tumour["enhancing_share"], abs=0.08)


def test_the_recipe_survives_json_and_rebuilds_the_same_patient(first: Phantom) -> None:
    again = build_phantom(json.loads(json.dumps(first.recipe)))

    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.labels, first.labels)


def test_the_stored_recipe_is_the_one_the_patient_was_made_from(phantoms: Path) -> None:
    record = json.loads((phantoms / "Phantom_002" / "Phantom_002_recipe.json").read_text())

    assert {key: record[key] for key in draw_recipe(0, 2)} == draw_recipe(0, 2)


def test_without_its_tumour_the_same_brain_is_healthy_and_unchanged_far_away(first: Phantom) -> None:
    recipe: dict[str, Any] = copy.deepcopy(first.recipe)
    recipe["tumour"]["foci"] = []

    healthy = build_phantom(recipe)

    assert not healthy.labels.any()
    np.testing.assert_array_equal(healthy.images != 0, first.images != 0)
    # T1 hardly differs on the side that has no tumour (left or right of voxel 119).
    sides = (first.labels[:119] > 0).sum(), (first.labels[119:] > 0).sum()
    other = slice(0, 100) if sides[0] < sides[1] else slice(140, 240)
    before, after = first.images[1, other], healthy.images[1, other]
    brain = before > 0
    assert np.corrcoef(before[brain], after[brain])[0, 1] > 0.8


def test_the_tumour_is_brighter_in_flair_than_the_healthy_brain(phantoms: Path) -> None:
    bright = []
    for folder in sorted(phantoms.iterdir()):
        flair, labels = read(folder / f"{folder.name}_flair.nii.gz"), read(folder / f"{folder.name}_seg.nii.gz")
        healthy = flair[(flair > 0) & (labels == 0)]
        bright.append((np.median(flair[labels > 0]) - healthy.mean()) / healthy.std())

    assert np.mean(bright) > 1


def test_a_finished_patient_is_not_made_again(made: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in (made / "Phantom_000").iterdir()}

    folders = make_phantoms(made, patients=1)

    assert folders == [made / "Phantom_000"]
    assert {file.name: file.stat().st_mtime_ns for file in folders[0].iterdir()} == before


def test_where_nothing_is_missing_it_does_not_say_that_it_makes_patients(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_phantoms(made, patients=1)

    assert capsys.readouterr().out == ""


def cut_short(patient: Path) -> None:
    file = patient / "Phantom_000_t2.nii.gz"
    file.write_bytes(file.read_bytes()[:1000])


def remove_an_image(patient: Path) -> None:
    (patient / "Phantom_000_seg.nii.gz").unlink()


def remove_the_recipe(patient: Path) -> None:
    (patient / "Phantom_000_recipe.json").unlink()


def spoil_the_recipe(patient: Path) -> None:
    (patient / "Phantom_000_recipe.json").write_text("[1, 2")


def age(patient: Path) -> None:
    file = patient / "Phantom_000_recipe.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "phantom_version": 0}))


@pytest.mark.parametrize("harm", [cut_short, remove_an_image, remove_the_recipe, spoil_the_recipe, age])
def test_a_damaged_or_older_patient_is_made_again(made: Path, quick: None, harm: Callable[[Path], None]) -> None:
    assert is_finished(made / "Phantom_000", seed=0, index=0)
    harm(made / "Phantom_000")

    make_phantoms(made, patients=1)

    assert is_finished(made / "Phantom_000", seed=0, index=0)
    assert read(made / "Phantom_000/Phantom_000_t2.nii.gz").shape == (24, 24, 15)


def test_a_patient_of_another_seed_is_not_mistaken_for_this_one(made: Path) -> None:
    assert not is_finished(made / "Phantom_000", seed=1, index=0)
    assert not is_finished(made / "Phantom_000", seed=0, index=1)


def fail_at(monkeypatch: pytest.MonkeyPatch, file: str, error: BaseException) -> None:
    """Let writing fail half way through ``file``."""
    write = module._write_nifti

    def failing(path: Path, voxels: np.ndarray) -> None:
        if path.name == file:
            path.write_bytes(b"half a fi")
            raise error
        write(path, voxels)

    monkeypatch.setattr(module, "_write_nifti", failing)


def test_an_interrupted_write_leaves_nothing_under_the_patients_name(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, "Phantom_001_t1ce.nii.gz", KeyboardInterrupt())
    write_phantom(tmp_path, 0, 0)

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path, 0, 1)

    assert [path.name for path in tmp_path.iterdir()] == ["Phantom_000"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_with_the_patients_name_and_leaves_the_earlier_ones_whole(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail_at(monkeypatch, "Phantom_002_t2.nii.gz", OSError(code, "No space left on device"))

    with pytest.raises(CourseError, match=r"Phantom_002: the disk is full"):
        make_phantoms(tmp_path, patients=4, workers=1)

    assert [is_finished(tmp_path / f"Phantom_00{index}", 0, index) for index in range(3)] == [True, True, False]
    assert not (tmp_path / "Phantom_002").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "one patient or more, not 0"),
        ({"patients": -3}, "one patient or more, not -3"),
        ({"patients": 1, "seed": -1}, "seed is 0 or more, not -1"),
        ({"patients": 1, "workers": 0}, "one worker or more, not 0"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(CourseError, match=message):
        make_phantoms(tmp_path / "new", **arguments)

    assert not (tmp_path / "new").exists()


def test_the_command_makes_patients_and_says_where(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["--out", str(tmp_path / "out"), "--patients", "2", "--seed", "5"]) == 0

    assert is_finished(tmp_path / "out/Phantom_001", seed=5, index=1)
    printed = capsys.readouterr().out
    assert "2/2" in printed
    assert f"2 patients are in {tmp_path / 'out'}" in printed


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({"seed": 0}, {"seed": 9}, "Phantom_000 in it belongs to seed 0. Two series"),
        ({"leave_out": "shapes"}, {}, "belongs to seed 0 without shapes. Two series"),
        ({}, {"leave_out": "shapes"}, "belongs to seed 0. Two series"),
    ],
)
def test_two_series_are_not_mixed_in_one_folder(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any], message: str
) -> None:
    make_phantoms(tmp_path, 1, **first)
    (tmp_path / "Phantom_table.csv").write_text("a file of the reader's own is in nobody's way")
    before = {file.name: file.read_bytes() for file in (tmp_path / "Phantom_000").iterdir()}

    with pytest.raises(CourseError, match=message):
        make_phantoms(tmp_path, 2, **then)

    assert {file.name: file.read_bytes() for file in (tmp_path / "Phantom_000").iterdir()} == before
    assert not (tmp_path / "Phantom_001").exists()


@pytest.mark.parametrize("out", ["a file", "a file/below", "folder"])
def test_a_place_where_no_folder_can_be_is_refused(
    tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "Phantom_000").write_text("mine too")

    assert command(["--out", str(tmp_path / out), "--patients", "1"]) == 1

    said = capsys.readouterr().err
    assert str(tmp_path / out) in said
    assert len(said.splitlines()) == 1
    assert (tmp_path / "folder" / "Phantom_000").read_text() == "mine too"


def test_the_command_ends_with_1_and_one_line_for_impossible_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["--out", str(tmp_path), "--patients", "0"]) == 1

    assert capsys.readouterr().err == "Ask for one patient or more, not 0.\n"


def test_the_files_of_a_patient_are_the_same_byte_by_byte_whenever_it_is_made(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_phantom(tmp_path / "one", 0, 0)
    monkeypatch.setattr("time.time", lambda: 1e9)
    second = write_phantom(tmp_path / "other", 0, 0)

    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("other_thread_was_first", [True, False])
def test_a_thread_of_an_interrupted_call_may_be_through_with_a_patient_first(
    other_thread_was_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module.write_phantom

    def lose_the_race(*arguments: Any) -> None:
        if other_thread_was_first:
            write(*arguments)
        raise FileNotFoundError("the file that the other thread has renamed")

    monkeypatch.setattr(module, "write_phantom", lose_the_race)
    if other_thread_was_first:
        assert make_phantoms(tmp_path, 1) == [tmp_path / "Phantom_000"]
    else:
        with pytest.raises(FileNotFoundError):
            make_phantoms(tmp_path, 1)


def test_a_tumour_without_a_core_is_all_oedema(first: Phantom) -> None:
    recipe: dict[str, Any] = copy.deepcopy(first.recipe)
    recipe["tumour"] |= {"core_share": 0.0, "enhancing_share": 0.0}

    assert set(np.unique(build_phantom(recipe).labels)) == {0, 2}
