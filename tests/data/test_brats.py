"""Finding patients under any folder."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from emcad_lib.data.brats import (
    MODALITIES,
    PatientError,
    find_patient,
    find_patients,
    read_scan,
    write_segmentation,
)
from emcad_lib.data.labels import BRATS_2020, BRATS_2023, DECATHLON
from emcad_lib.files import CourseError


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("naming", "convention", "names"),
    [
        ("2018", BRATS_2020, ["Brats18_TCIA_001_1", "Brats18_TCIA_002_1", "Brats18_TCIA_003_1"]),
        ("2020", BRATS_2020, ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_003"]),
        ("2021", BRATS_2020, ["BraTS2021_00001", "BraTS2021_00002", "BraTS2021_00003"]),
        ("2023", BRATS_2023, ["BraTS-GLI-00001-000", "BraTS-GLI-00002-000", "BraTS-GLI-00003-000"]),
        ("kaggle", BRATS_2020, ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_003"]),
        ("decathlon", DECATHLON, ["BRATS_001", "BRATS_002", "BRATS_003"]),
    ],
)
def test_every_naming_gives_the_same_arrays_and_its_own_segmentation_back(
    tmp_path, tiny_patients, naming, convention, names, suffix
):
    tiny_patients(tmp_path / "other", 1)
    tiny_patients(tmp_path / "data", 3, naming, suffix)
    expected = read_scan(find_patient(tmp_path / "other"))

    patients, problems = find_patients(tmp_path / "data", need_segmentation=True)

    assert problems == []
    assert [patient.name for patient in patients] == names
    assert {patient.convention for patient in patients} == {convention}
    scan = read_scan(patients[0])
    np.testing.assert_array_equal(scan.images, expected.images)
    np.testing.assert_array_equal(scan.regions, expected.regions)
    write_segmentation(tmp_path / "out.nii.gz", scan.regions, scan, convention)
    written, own = nib.load(tmp_path / "out.nii.gz"), nib.load(patients[0].segmentation)
    np.testing.assert_array_equal(written.get_fdata(), own.get_fdata())
    np.testing.assert_array_equal(written.affine, own.affine)
    assert written.get_data_dtype() == np.uint8


def test_the_four_images_stand_under_their_own_names_whatever_the_release_calls_them(tmp_path, tiny_patients):
    (folder,) = tiny_patients(tmp_path, 1, "2023")

    patient = find_patient(folder)

    assert tuple(patient.images) == MODALITIES == ("flair", "t1", "t1ce", "t2")
    assert [patient.images[modality].name.rsplit("-", 1)[1] for modality in MODALITIES] == [
        "t2f.nii.gz", "t1n.nii.gz", "t1c.nii.gz", "t2w.nii.gz",
    ]  # fmt: skip


def test_modality_words_count_in_upper_and_lower_case(tmp_path, tiny_patients):
    (folder,) = tiny_patients(tmp_path, 1)
    for path in list(folder.iterdir()):
        stem, word = path.name.rsplit("_", 1)
        path.rename(folder / f"{stem}_{word.upper()}")

    patients, problems = find_patients(tmp_path, need_segmentation=True)

    assert [patient.name for patient in patients] == ["BraTS20_Training_001"]
    assert problems == []


@pytest.mark.parametrize(
    "name", ["Patient Zero", "Übung_Ö_患者", "a.b.c", "x_t1_y", "T1", "case (1)", "-", "BraTS-GLI-1_2"]
)
def test_a_patient_may_have_any_name(tmp_path, tiny_patients, name):
    (folder,) = tiny_patients(tmp_path / "in", 1)
    (tmp_path / name).mkdir()
    for path in folder.iterdir():
        path.rename(tmp_path / name / path.name.replace("BraTS20_Training_001", name))

    patient = find_patient(tmp_path / name)

    assert patient.name == name
    assert patient.segmentation is not None
    assert read_scan(patient).images.shape == (4, 48, 48, 24)


def test_hidden_files_and_folders_are_no_patients(tmp_path, tiny_patients):
    (folder,) = tiny_patients(tmp_path / ".cache" / "data", 1)  # hidden above the folder asked for: that's fine
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"Mac OS X")
    (folder / ".DS_Store").write_bytes(b"x")
    shutil.copytree(folder, folder.parent / ".ipynb_checkpoints" / "Copy_001")

    patients, problems = find_patients(tmp_path / ".cache" / "data", need_segmentation=True)

    assert [patient.name for patient in patients] == ["BraTS20_Training_001"]
    assert problems == []


def test_several_patients_may_lie_in_one_folder(tmp_path, tiny_patients):
    (tmp_path / "flat").mkdir()
    for folder in tiny_patients(tmp_path / "in", 2):
        for path in folder.iterdir():
            path.rename(tmp_path / "flat" / path.name)

    patients, problems = find_patients(tmp_path / "flat", need_segmentation=True)

    assert [patient.name for patient in patients] == ["BraTS20_Training_001", "BraTS20_Training_002"]
    assert problems == []


def test_a_linked_patient_is_found_and_a_link_in_a_circle_is_not_followed(tmp_path, tiny_patients):
    (elsewhere,) = tiny_patients(tmp_path / "elsewhere", 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "circle").symlink_to(tmp_path / "data", target_is_directory=True)

    patients, problems = find_patients(tmp_path / "data")

    assert [patient.name for patient in patients] == ["BraTS20_Training_001"]
    assert problems == []


def test_kaggles_misnamed_segmentation_belongs_to_the_patient_in_its_folder(tmp_path, tiny_patients):
    folders = tiny_patients(tmp_path, 2, "kaggle", ".nii", first=355)

    patients, problems = find_patients(tmp_path, need_segmentation=True)

    assert problems == []
    assert [patient.segmentation for patient in patients] == [
        folders[0] / "W39_1998.09.19_Segm.nii",
        folders[1] / "BraTS20_Training_356_seg.nii",
    ]


def test_a_patients_own_segmentation_goes_before_the_misnamed_one(tmp_path, tiny_patients):
    (folder,) = tiny_patients(tmp_path, 1, "2020")
    shutil.copy(folder / "BraTS20_Training_001_seg.nii.gz", folder / "W39_1998.09.19_Segm.nii.gz")

    assert find_patient(folder).segmentation == folder / "BraTS20_Training_001_seg.nii.gz"


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("naming", "words"), [("2020", MODALITIES), ("2023", ("t2f", "t1n", "t1c", "t2w"))])
def test_a_missing_modality_leaves_out_that_patient_and_no_other(tmp_path, tiny_patients, naming, words, modality):
    folders = tiny_patients(tmp_path, 3, naming)
    joint = "_" if naming == "2020" else "-"
    missing = folders[1] / f"{folders[1].name}{joint}{words[MODALITIES.index(modality)]}.nii.gz"
    missing.unlink()

    patients, problems = find_patients(tmp_path)

    assert [patient.name for patient in patients] == [folders[0].name, folders[2].name]
    (problem,) = problems
    assert (problem.patient, problem.file) == (folders[1].name, missing)
    assert problem.problem == f"missing: {modality}"


def test_a_patient_without_segmentation_is_left_out_only_where_one_is_needed(tmp_path, tiny_patients):
    folders = tiny_patients(tmp_path, 2)
    missing = folders[0] / "BraTS20_Training_001_seg.nii.gz"
    missing.unlink()

    patients, problems = find_patients(tmp_path)
    assert [patient.segmentation for patient in patients] == [None, folders[1] / "BraTS20_Training_002_seg.nii.gz"]
    assert problems == []

    patients, problems = find_patients(tmp_path, need_segmentation=True)
    assert [patient.name for patient in patients] == ["BraTS20_Training_002"]
    assert [(problem.patient, problem.file, problem.problem) for problem in problems] == [
        ("BraTS20_Training_001", missing, "the segmentation is missing")
    ]


def test_a_segmentation_without_any_image_is_a_patient_with_everything_missing(tmp_path, tiny_patients):
    (folder,) = tiny_patients(tmp_path, 1)
    for modality in MODALITIES:
        (folder / f"{folder.name}_{modality}.nii.gz").unlink()

    patients, problems = find_patients(tmp_path)

    assert patients == []
    assert [problem.problem for problem in problems] == ["missing: flair, t1, t1ce, t2"]


@pytest.mark.parametrize("role", [*MODALITIES, "seg"])
def test_two_files_for_one_modality_are_both_named(tmp_path, tiny_patients, role):
    (folder,) = tiny_patients(tmp_path, 1)
    twice = folder / f"{folder.name}_{role}.nii.gz"
    twice.with_suffix("").write_bytes(twice.read_bytes())

    patients, problems = find_patients(tmp_path)

    assert patients == []
    assert [problem.problem for problem in problems] == [
        f"two files for {role}: {folder.name}_{role}.nii and {twice.name}"
    ]


def test_patients_who_share_a_name_are_all_left_out(tmp_path, tiny_patients):
    tiny_patients(tmp_path / "HGG", 2)
    tiny_patients(tmp_path / "LGG", 1)

    patients, problems = find_patients(tmp_path)

    assert [patient.name for patient in patients] == ["BraTS20_Training_002"]
    (problem,) = problems
    assert problem.patient == "BraTS20_Training_001"
    assert "HGG/BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz" in problem.problem
    assert "LGG/BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz" in problem.problem


def test_a_decathlon_scan_needs_its_labels_only_where_one_is_needed(tmp_path, tiny_patients):
    tiny_patients(tmp_path, 2, "decathlon")
    (tmp_path / "Task01_BrainTumour" / "labelsTr" / "BRATS_002.nii.gz").unlink()

    assert [patient.name for patient in find_patients(tmp_path)[0]] == ["BRATS_001", "BRATS_002"]
    patients, problems = find_patients(tmp_path, need_segmentation=True)
    assert [patient.name for patient in patients] == ["BRATS_001"]
    assert [(problem.patient, problem.file.name) for problem in problems] == [("BRATS_002", "BRATS_002.nii.gz")]


def test_the_decathlons_folder_of_images_may_be_given_itself(tmp_path, tiny_patients):
    tiny_patients(tmp_path, 2, "decathlon")

    patients, problems = find_patients(tmp_path / "Task01_BrainTumour" / "imagesTr", need_segmentation=True)

    assert [patient.name for patient in patients] == ["BRATS_001", "BRATS_002"]
    assert problems == []


def test_an_empty_folder_says_which_names_are_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")

    with pytest.raises(
        CourseError, match=r"no patient found.*CASE_flair\.nii\.gz.*CASE-t2f\.nii\.gz.*imagesTr.*Unpack"
    ):
        find_patients(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CourseError, match="no_such_folder: there is no such folder"):
        find_patients(tmp_path / "no_such_folder")
    with pytest.raises(CourseError, match="no_such_folder: there is no such folder"):
        find_patient(tmp_path / "no_such_folder")


def test_a_file_is_no_folder_of_patients(tmp_path):
    (tmp_path / "brats.zip").write_bytes(b"PK")

    with pytest.raises(CourseError, match=r"brats\.zip: this is a file"):
        find_patients(tmp_path / "brats.zip")


def test_a_folder_that_may_not_be_read_is_listed_and_the_others_are_found(tmp_path, tiny_patients, monkeypatch):
    folders = tiny_patients(tmp_path, 2)
    scandir = os.scandir

    def forbidding(path):
        if Path(path) == folders[0]:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    patients, problems = find_patients(tmp_path)

    assert [patient.name for patient in patients] == ["BraTS20_Training_002"]
    assert [(problem.file, problem.problem) for problem in problems] == [
        (folders[0], "the folder can't be read (Permission denied)")
    ]


def test_one_patient_is_expected_and_the_first_of_several_are_named(tmp_path, tiny_patients):
    tiny_patients(tmp_path, 5)

    with pytest.raises(CourseError, match=r"there are 5: BraTS20_Training_001, .*_002, .*_003, \.\.\."):
        find_patient(tmp_path)


def test_one_patient_with_a_missing_file_says_which(tmp_path, tiny_patients):
    (folder,) = tiny_patients(tmp_path, 1)
    (folder / f"{folder.name}_t1ce.nii.gz").unlink()

    with pytest.raises(PatientError, match="BraTS20_Training_001_t1ce.nii.gz: missing: t1ce"):
        find_patient(folder)


def test_a_4d_file_of_the_decathlon_is_a_patient_by_itself(tmp_path, tiny_patients, monkeypatch):
    (path, _) = tiny_patients(tmp_path, 2, "decathlon")

    patient = find_patient(path)
    monkeypatch.chdir(path.parent)
    from_within = find_patient(path.name)

    assert patient.name == from_within.name == "BRATS_001"
    assert patient.segmentation == from_within.segmentation == path.parent.parent / "labelsTr" / "BRATS_001.nii.gz"
    assert find_patient(tmp_path / "Task01_BrainTumour" / "imagesTs" / "BRATS_900.nii.gz").segmentation is None


@pytest.mark.parametrize("name", ["BraTS20_Training_001_t1.nii.gz", "notes.txt"])
def test_one_file_of_a_patient_is_not_the_patient(tmp_path, tiny_patients, name):
    (folder,) = tiny_patients(tmp_path, 1)
    (folder / "notes.txt").write_text("x")

    with pytest.raises(CourseError, match=f"{name}: give the patient's folder"):
        find_patient(folder / name)


def test_a_problem_is_one_line_that_names_all_and_comes_back_whole_from_a_worker():
    error = PatientError("Case 7", "/somewhere/private/case_7_t1.nii", "the file\nis empty", "Copy it again")

    again = pickle.loads(pickle.dumps(error))

    assert str(error) == "Patient Case 7, case_7_t1.nii: the file is empty. Copy it again."
    assert str(again) == str(error)
    assert (again.patient, again.file, again.remedy) == (
        "Case 7",
        Path("/somewhere/private/case_7_t1.nii"),
        "Copy it again",
    )
