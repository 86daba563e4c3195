"""Prepare all patients of a folder into a cache (see ``cache.py``), several at once.

A patient's folder appears in the cache only when it's whole, and the manifest comes last: work that was interrupted, by
whatever, goes on where it stopped.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import emcad_lib
from emcad_lib.data.brats import find_patients
from emcad_lib.data.cache import ARRAYS, CACHE_VERSION, MANIFEST, RECORD, Record, open_array, patient_folder
from emcad_lib.data.cluster import run_jobs
from emcad_lib.data.nifti import PatientError
from emcad_lib.data.prepare import Prepared, dequantise, naming, normalise, prepare_patient, quantise
from emcad_lib.data.scan import MODALITIES, Patient, Scan, read_scan
from emcad_lib.data.split import split_patients
from emcad_lib.files import CourseError, read_json, remove_leftovers, replacing, sha256, write_json
from emcad_lib.progress import progress

__all__ = [
    "CACHE_VERSION", "Prepared", "Report",
    "dequantise", "normalise", "prepare_patient", "preprocess", "quantise", "split_patients",
]  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What :func:`preprocess` did: names of patients prepared now and reused, and what was left out and why."""

    prepared: list[str]
    reused: list[str]
    problems: list[PatientError]


def preprocess(
    data_dir: str | Path,
    cache_dir: str | Path,
    workers: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    dask: str | None = None,
) -> Report:
    """Prepare all patients in and under ``data_dir`` for training, several at once, and write the cache's manifest.

    Patients that are in the cache already, whole, made by this version and from the same files, are left as they are.
    A patient with a fault is left out, and the others go on.

    Args:
        data_dir: a folder of patients with segmentations, in any naming.
        cache_dir: the folder to write.
        workers: processes at once, by default one per processor. Each takes up to 0.8 GB of memory.
        seed: of the split into train, val and test.
        limit: take the first so many patients by name only.
        dask: do the work on a Dask cluster: its scheduler's address, or "local" for one of this machine's processors.
            All its workers must see both folders under the same path.

    Raises:
        CourseError: no such folder; no patient in it, or none that can be used; ``cache_dir`` can't be written; the
            disk is full; ``workers`` or ``limit`` below 1; a cluster that can't do the work, see ``cluster.py``.
    """
    for name, number in (("workers", workers), ("limit", limit)):
        if number is not None and number < 1:
            raise CourseError(f"{name} must be 1 or more, not {number}.")
    data_dir, cache_dir = Path(data_dir), Path(cache_dir)
    if dask is not None:  # whose workers may have been started in another folder
        data_dir, cache_dir = data_dir.absolute(), cache_dir.absolute()
    patients, problems = find_patients(data_dir, need_segmentation=True)
    patients = patients[:limit]
    _make_room(cache_dir)
    records = {patient.name: record for patient in patients if (record := _reusable(patient, cache_dir))}
    reused = sorted(records)
    todo = [patient for patient in patients if patient.name not in records]
    if any(patient_folder(cache_dir, patient.name).exists() for patient in todo):
        (cache_dir / MANIFEST).unlink(missing_ok=True)  # it describes arrays that are about to be replaced
    for patient, result in _prepare_all(todo, cache_dir, workers, dask, done=len(reused)):
        if isinstance(result, PatientError):
            problems.append(result)
        else:
            records[patient] = result
    problems.sort(key=lambda problem: problem.patient)
    if not records:
        reasons = "\n".join(f"- {problem}" for problem in problems)
        raise CourseError(f"{data_dir}: there is no patient that can be used.\n{reasons}")

    manifest = {
        "version": CACHE_VERSION,
        "library": emcad_lib.__version__,
        "split_seed": seed,
        "patients": {name: {"split": split, **records[name]} for name, split in split_patients(records, seed).items()},
    }
    write_json(cache_dir / MANIFEST, manifest)
    return Report(sorted(records.keys() - reused), reused, problems)


def _make_room(cache_dir: Path) -> None:
    """Make the cache's folders, and remove what an interrupted process has left in them."""
    try:
        (cache_dir / "patients").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(f"{cache_dir}: can't be written ({error.strerror}). Choose another folder.") from error
    for folder in (cache_dir, cache_dir / "patients", *cache_dir.glob("patients/*")):
        remove_leftovers(folder)


def _prepare_all(
    patients: list[Patient], cache_dir: Path, workers: int | None, dask: str | None, done: int
) -> Iterator[tuple[str, Record | PatientError]]:
    """Prepare patients, several at once, in whatever order they are ready. No more than ``workers`` are in memory."""
    if not patients:
        return
    with progress(label="Prepare patients", total=done + len(patients), unit="patient") as bar:
        bar.update(done)
        for result in run_jobs(partial(_prepare, cache_dir=cache_dir), patients, cache_dir, workers, dask):
            bar.update()
            yield result


def _prepare(patient: Patient, cache_dir: Path) -> tuple[str, Record | PatientError]:
    """Prepare one patient: its name, and its record or what is wrong with it."""
    try:
        stamps, hashes = _stamps(patient), _hashes(patient)
        scan = read_scan(patient)
        _check_pixels(patient, scan)
        with naming(patient):
            prepared = prepare_patient(scan)
    except PatientError as error:
        return patient.name, error
    except OSError as error:
        problem = f"it can't be read ({error.strerror})"
        file = error.filename or patient.images[MODALITIES[0]]
        return patient.name, PatientError(patient.name, file, problem, "Check the file and its permissions")
    assert prepared.regions is not None  # patients were sought with segmentations
    record: Record = {
        "slices": len(prepared.images),
        "tumour_slices": int(prepared.regions.any(axis=(1, 2)).sum()),
        "box": [list(ends) for ends in prepared.box],
        "shape": list(scan.images.shape[1:]),
        "spacing": list(scan.spacing),
        "mean": dict(zip(MODALITIES, prepared.mean, strict=True)),
        "std": dict(zip(MODALITIES, prepared.std, strict=True)),
        "sources": hashes,
    }
    try:
        with replacing(patient_folder(cache_dir, patient.name)) as beside:
            beside.mkdir()
            _save(beside / "images.npy", prepared.images)
            _save(beside / "regions.npy", prepared.regions)
            write_json(beside / RECORD, {"version": CACHE_VERSION, "stamps": stamps, **record})
    except OSError:
        if _reusable(patient, cache_dir) is None:
            raise
        # Otherwise another process that prepares the same patients was a moment faster with this one.
    return patient.name, record


def _check_pixels(patient: Patient, scan: Scan) -> None:
    across, down, _ = scan.spacing
    if abs(across - 1) > 0.02 or abs(down - 1) > 0.02:
        raise PatientError(
            patient.name, patient.images[MODALITIES[0]],
            f"its pixels measure {across:.2f} x {down:.2f} mm, where training slices have 1 x 1 mm",
            "Resample the patient's files to 1 mm, as all of BraTS is",
        )  # fmt: skip


def _save(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array as .npy. Through bytes, because ``np.save`` itself hides from its caller why a write failed."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.write_bytes(buffer.getbuffer())


def _reusable(patient: Patient, cache_dir: Path) -> Record | None:
    """The record of a patient whose slices in the cache are whole, of this version, and of the same files; or None."""
    path = patient_folder(cache_dir, patient.name) / RECORD
    try:
        record: Record = read_json(path)
        if record.pop("version") != CACHE_VERSION:
            return None
        for file in ARRAYS:
            open_array(cache_dir, patient.name, file, record)
        # As make and git do, believe that a file is the same when its size and time are: hashing all of BraTS takes
        # minutes. A copy of the data has other times and the same hashes.
        stamps = _stamps(patient)
        if record.pop("stamps") != stamps:
            if record["sources"] != _hashes(patient):
                return None
            write_json(path, {"version": CACHE_VERSION, "stamps": stamps, **record})
    except (CourseError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return record


def _sources(patient: Patient) -> dict[str, Path]:
    """A patient's files by name; by folder and name for the Decathlon, where images and labels have the same names."""
    paths = sorted({*patient.images.values(), *([patient.segmentation] if patient.segmentation else [])})
    together = os.path.commonpath([path.parent for path in paths])
    return {path.relative_to(together).as_posix(): path for path in paths}


def _stamps(patient: Patient) -> dict[str, list[int]]:
    """Size and time of last change of each file."""
    return {name: [(status := path.stat()).st_size, status.st_mtime_ns] for name, path in _sources(patient).items()}


def _hashes(patient: Patient) -> dict[str, str]:
    return {name: sha256(path) for name, path in _sources(patient).items()}
