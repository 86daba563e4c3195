"""Find patients under any folder, in every naming that BraTS has used.

======================  ==================================================  ======================
release                 files                                               labels
======================  ==================================================  ======================
BraTS 2018 to 2021      CASE_flair, CASE_t1, CASE_t1ce, CASE_t2, CASE_seg   1, 2, 4
BraTS 2023 and later    CASE-t2f, CASE-t1n, CASE-t1c, CASE-t2w, CASE-seg    1, 2, 3
Decathlon Task01        imagesTr/CASE (four volumes), labelsTr/CASE         1, 2, 3 (other order)
======================  ==================================================  ======================

Each ends in .nii or .nii.gz. The folders above a patient play no part, and neither does upper or lower case in the
modality. What is wrong *inside* a file only shows when it's read: see ``nifti.py``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from emcad_lib.data.labels import BRATS_2020, BRATS_2023, DECATHLON
from emcad_lib.data.nifti import PatientError
from emcad_lib.data.scan import MODALITIES, Grid, Patient, Scan, read_scan, write_segmentation
from emcad_lib.files import CourseError

__all__ = [
    "MODALITIES", "Grid", "Patient", "PatientError", "Scan",
    "find_patient", "find_patients", "read_scan", "write_segmentation",
]  # fmt: skip

_WORDS = {
    "_": {"flair": "flair", "t1": "t1", "t1ce": "t1ce", "t2": "t2", "seg": "seg", "segm": "segm"},
    "-": {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2", "seg": "seg"},
}
_CONVENTIONS = {"_": BRATS_2020, "-": BRATS_2023}
_FILE = re.compile(r"(?P<case>.+)(?P<joint>[_-])(?P<word>[a-z0-9]+)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)

_Case = dict[str, list[Path]]  # modality, "seg" or "segm" -> its files; more than one is a fault


def find_patients(folder: str | Path, need_segmentation: bool = False) -> tuple[list[Patient], list[PatientError]]:
    """Find all patients in and under ``folder``.

    Returns:
        The patients, sorted by name, and what was left out and why: patients of whom an image (or the segmentation,
        with ``need_segmentation``) is missing, or there twice, and patients who share a name.

    Raises:
        CourseError: ``folder`` doesn't exist, or holds nothing that looks like a patient.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # unlike Path.is_dir, it doesn't raise where a folder above can't be entered
        what = "this is a file, not a folder" if os.path.exists(folder) else "there is no such folder"
        raise CourseError(f"{folder}: {what}. Give the folder that holds the patients.")
    found: list[Patient] = []
    problems: list[PatientError] = []
    for place, files in _walk(folder, problems):
        collect = _decathlon_patients if place.name == "imagesTr" else _brats_patients
        for item in collect(place, files, need_segmentation):
            if isinstance(item, PatientError):
                problems.append(item)
            else:
                found.append(item)
    if not found and not problems:
        raise CourseError(
            f"{folder}: no patient found. Files are expected to be called like CASE_flair.nii.gz (BraTS 2018 to 2021) "
            "or CASE-t2f.nii.gz (2023 and later), or to lie in a folder imagesTr (Decathlon). Unpack them, or give "
            "another folder."
        )
    patients, twice = _unique(found, folder)
    return patients, sorted(problems + twice, key=lambda problem: problem.patient)


def find_patient(folder: str | Path) -> Patient:
    """Find the one patient in ``folder``; a 4D file of the Decathlon will do as well.

    Raises:
        PatientError: there is one patient, and a file is missing or there twice.
        CourseError: there is no such folder, no patient in it, or several.
    """
    folder = Path(folder)
    if os.path.isfile(folder):
        return _patient_of_file(folder)
    patients, problems = find_patients(folder)
    names = sorted({patient.name for patient in patients} | {problem.patient for problem in problems})
    if len(names) > 1:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise CourseError(f"{folder}: one patient is expected, but there are {len(names)}: {shown}. Give one's folder.")
    if problems:
        raise problems[0]
    return patients[0]


def _walk(folder: Path, problems: list[PatientError]) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder under ``folder`` with its files, without hidden ones. Links are followed, but never in circles."""

    def unreadable(error: OSError) -> None:
        place = Path(error.filename)
        problem = f"the folder can't be read ({error.strerror})"
        problems.append(PatientError(place.name, place, problem, "Check its permissions"))

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), [Path(place, name) for name in sorted(files) if not name.startswith(".")]


def _brats_patients(place: Path, files: list[Path], need_segmentation: bool) -> Iterator[Patient | PatientError]:
    cases: dict[tuple[str, str], _Case] = defaultdict(lambda: defaultdict(list))
    for path in files:
        match = _FILE.fullmatch(path.name)
        role = match and _WORDS[match["joint"]].get(match["word"].lower())
        if match and role:
            cases[match["case"], match["joint"]][role].append(path)
    scanned = {key: case for key, case in cases.items() if any(modality in case for modality in MODALITIES)}
    if len(scanned) == 1:
        # Kaggle's copy of BraTS 2020 has one segmentation under a foreign name: W39_1998.09.19_Segm.nii, patient 355.
        (case,) = scanned.values()
        foreign = [path for other in cases.values() for path in other.get("segm", [])]
        if "seg" not in case and foreign:
            case["seg"] = foreign
    # Without any image beside it, even a segmentation alone is a patient with something missing.
    for (name, joint), case in (scanned or cases).items():
        yield _patient_of_case(name, joint, case, place, need_segmentation)


def _patient_of_case(
    name: str, joint: str, case: _Case, place: Path, need_segmentation: bool
) -> Patient | PatientError:
    words = {role: word for word, role in _WORDS[joint].items()}
    missing = [role for role in (*MODALITIES, "seg") if role not in case and (role != "seg" or need_segmentation)]
    if missing:
        expected = place / f"{name}{joint}{words[missing[0]]}.nii.gz"
        what = "the segmentation is missing" if missing == ["seg"] else f"missing: {', '.join(missing)}"
        return PatientError(name, expected, what, "Put it beside the patient's other files, or leave the patient out")
    for role, paths in case.items():
        if len(paths) > 1 and role != "segm":
            both = " and ".join(path.name for path in paths)
            return PatientError(name, paths[0], f"two files for {role}: {both}", "Keep one of them")
    segmentation = case["seg"][0] if "seg" in case else None
    return Patient(name, {modality: case[modality][0] for modality in MODALITIES}, segmentation, _CONVENTIONS[joint])


def _decathlon_patients(place: Path, files: list[Path], need_segmentation: bool) -> Iterator[Patient | PatientError]:
    for path in files:
        name = _stem(path)
        if name is None:
            continue
        labels = place.parent / "labelsTr"
        either = (labels / f"{name}.nii.gz", labels / f"{name}.nii")
        segmentation = next((file for file in either if os.path.isfile(file)), None)
        if segmentation is None and need_segmentation:
            remedy = "Put it in the folder labelsTr beside imagesTr, or leave the patient out"
            yield PatientError(name, labels / path.name, "the segmentation is missing", remedy)
        else:
            yield Patient(name, dict.fromkeys(MODALITIES, path), segmentation, DECATHLON)


def _patient_of_file(path: Path) -> Patient:
    match = _FILE.fullmatch(path.name)
    if _stem(path) is None or (match and match["word"].lower() in _WORDS[match["joint"]]):
        raise CourseError(f"{path}: give the patient's folder. Only a 4D file of the Decathlon is a patient by itself.")
    (patient,) = _decathlon_patients(path.absolute().parent, [path], need_segmentation=False)
    if isinstance(patient, PatientError):
        raise patient
    return patient


def _stem(path: Path) -> str | None:
    """The name of a NIfTI file without its suffix; None for any other file."""
    match = re.fullmatch(r"(.+?)\.nii(\.gz)?", path.name, re.IGNORECASE | re.DOTALL)
    return match[1] if match else None


def _unique(found: list[Patient], folder: Path) -> tuple[list[Patient], list[PatientError]]:
    """Leave out patients who share a name: one of them in training and the other in the test would spoil both."""
    by_name: dict[str, list[Patient]] = defaultdict(list)
    for patient in found:
        by_name[patient.name].append(patient)
    problems = []
    for name, same in by_name.items():
        if len(same) > 1:
            paths = [patient.images[MODALITIES[0]] for patient in same]
            places = " and ".join(path.relative_to(folder).as_posix() for path in paths)
            problem = f"{len(same)} patients have this name: {places}"
            problems.append(PatientError(name, paths[0], problem, "Remove or rename all but one; none of them is used"))
    return [same[0] for _, same in sorted(by_name.items()) if len(same) == 1], problems
