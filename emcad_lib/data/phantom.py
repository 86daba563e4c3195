"""Phantom patients: synthetic four-modality MRI of brains with a glioma, in the BraTS 2020 format.

Nothing in them comes from a patient. A recipe of random numbers (``recipe.py``) bends a public template of the healthy
brain (``anatomy.py``), grows a tumour in it (``tumour.py``) and takes four images (``contrast.py``). Patient ``index``
of series ``seed`` is the same voxel by voxel, whenever and with however many others it's made. Built step by step in
notebooks/01.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from isal import igzip

from emcad_lib.data.anatomy import GRID, build_anatomy, one_thread
from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.contrast import render
from emcad_lib.data.leave_out import INGREDIENTS, without
from emcad_lib.data.recipe import draw_recipe
from emcad_lib.data.tumour import equal_volume_radius, grow, push
from emcad_lib.files import CourseError, read_json, remove_leftovers, replacing, write_json
from emcad_lib.progress import progress

PHANTOM_VERSION = 6  # raise it whenever the same recipe gives other voxels: patients of an older version are made anew
AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Phantom:
    """One patient: images int16 (4, 240, 240, 155) in MODALITIES order, labels uint8 (240, 240, 155), recipe."""

    images: np.ndarray
    labels: np.ndarray
    recipe: dict[str, Any]


def make_phantom(seed: int, index: int) -> Phantom:
    """Patient ``index`` of the series ``seed``: axes L, P, S, labels as in BraTS 2020."""
    return build_phantom(draw_recipe(seed, index))


def build_phantom(recipe: Mapping[str, Any]) -> Phantom:
    """The patient that ``recipe`` describes: what ``draw_recipe`` gives, or a changed copy of it.

    With ``recipe["tumour"]["foci"]`` emptied it's the same brain without its tumour.
    """
    tumour = recipe["tumour"]
    core_radius = equal_volume_radius(tumour["whole_cm3"] * tumour["core_share"])
    mass_effect = partial(push, foci=tumour["foci"], radius=core_radius, strength=tumour["push"])
    with one_thread():
        anatomy = build_anatomy(recipe["anatomy"], recipe["fields_seed"], mass_effect)
        growth = grow(tumour, anatomy)
        rendered = render(recipe, anatomy, growth)
    box, found = anatomy.box, growth.labels.numpy() if growth else 0
    del anatomy, growth
    _return_freed_memory()  # now, or else what follows comes on top of it
    images = np.zeros((*GRID, len(MODALITIES)), dtype=np.int16, order="F")  # in memory as in a NIfTI file
    images[box] = rendered.permute(1, 2, 3, 0).numpy()
    labels = np.zeros(GRID, dtype=np.uint8, order="F")
    labels[box] = found
    return Phantom(images.transpose(3, 0, 1, 2), labels, dict(recipe))


def patient_name(index: int) -> str:
    """The name of patient ``index``, which is its folder's and the beginning of its files'."""
    return f"Phantom_{index:03d}"


def write_phantom(folder: str | Path, seed: int, index: int, leave_out: str | None = None) -> Path:
    """Make one patient and write it as BraTS 2020 does; return its folder, which appears only when it's whole.

    Args:
        leave_out: make it without this ingredient, one of ``leave_out.INGREDIENTS``.

    Raises:
        CourseError: when the disk is full.
        ValueError: there is no such ingredient.
    """
    name = patient_name(index)
    recipe = draw_recipe(seed, index)
    phantom = build_phantom(recipe if leave_out is None else without(recipe, leave_out))
    with replacing(Path(folder) / name) as beside:
        beside.mkdir()
        for modality, image in zip(MODALITIES, phantom.images, strict=True):
            _write_nifti(beside / f"{name}_{modality}.nii.gz", image)
        _write_nifti(beside / f"{name}_seg.nii.gz", phantom.labels)
        sizes = {file.name: file.stat().st_size for file in sorted(beside.iterdir())}
        record = {"phantom_version": PHANTOM_VERSION, **phantom.recipe, "bytes": sizes}
        write_json(beside / f"{name}_recipe.json", record)
    return Path(folder) / name


def _job(folder: Path, seed: int, index: int, leave_out: str | None) -> None:
    torch.set_num_threads(1)  # each thread has a setting of its own
    try:
        write_phantom(folder, seed, index, leave_out)
    except FileNotFoundError:  # a thread of an interrupted call may be at the same patient, and be through with it
        if not is_finished(folder / patient_name(index), seed, index, leave_out):
            raise
    _return_freed_memory()


def _return_freed_memory() -> None:
    """Hand freed arrays back to the system; glibc would keep them, and the memory would grow patient by patient."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)


def _write_nifti(path: Path, voxels: np.ndarray) -> None:
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_qform(AFFINE, code=1)
    image.set_sform(AFFINE, code=1)
    image.header.set_xyzt_units("mm")
    # igzip is gzip, only faster. Without a time in it, equal patients are equal files.
    path.write_bytes(igzip.compress(image.to_bytes(), 1, mtime=0))


def is_finished(patient: Path, seed: int, index: int, leave_out: str | None = None) -> bool:
    """Whether the folder holds that very patient, made by this version, with every file at its full length."""
    try:
        record = read_json(patient / f"{patient_name(index)}_recipe.json")
        made_from = record["phantom_version"], record["seed"], record["index"], record.get("without")
        sizes = {name: (patient / name).stat().st_size for name in record["bytes"]}
    except (CourseError, OSError, KeyError, TypeError):
        return False
    return made_from == (PHANTOM_VERSION, seed, index, leave_out) and sizes == record["bytes"]


def make_phantoms(
    folder: str | Path, patients: int, seed: int = 0, workers: int | None = None, leave_out: str | None = None
) -> list[Path]:
    """Make patients 0, 1, ... of the series ``seed`` in ``folder``, several at once; return their folders.

    Patients that are there already, whole and of this version, are left as they are. Those of an older version are made
    anew.

    Args:
        workers: patients at once; by default one per processor.
        leave_out: make them without this ingredient, one of ``leave_out.INGREDIENTS``.

    Raises:
        CourseError: for a number of patients or workers below 1, a negative seed, an unknown ingredient, a full disk;
            a folder that can't be written to, or that holds patients of another seed or with other ingredients.
    """
    if leave_out is not None and leave_out not in INGREDIENTS:
        raise CourseError(f"There is no ingredient {leave_out!r} to leave out. Choose from: {', '.join(INGREDIENTS)}.")
    if patients < 1:
        raise CourseError(f"Ask for one patient or more, not {patients}.")
    if seed < 0:
        raise CourseError(f"A seed is 0 or more, not {seed}.")
    if workers is not None and workers < 1:
        raise CourseError(f"Ask for one worker or more, not {workers}.")
    folder = Path(folder)
    _check_folder(folder, seed, leave_out)
    remove_leftovers(folder)
    folders = [folder / patient_name(index) for index in range(patients)]
    missing = [index for index in range(patients) if not is_finished(folders[index], seed, index, leave_out)]
    if not missing:
        return folders
    workers = min(workers or os.cpu_count() or 1, len(missing))
    with one_thread(), progress(label="Make phantom patients", total=patients, unit="patient") as bar:
        bar.update(patients - len(missing))
        # Threads, not processes: nearly all the time goes into PyTorch, NumPy and zlib, which let other threads run
        # meanwhile, and a process would first have to load them all again.
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(_job, folder, seed, index, leave_out) for index in missing]
            try:
                for job in as_completed(jobs):
                    job.result()
                    bar.update()
            finally:  # where one failed, those at work beside it end well, and no other begins
                pool.shutdown(cancel_futures=True)
    return folders


def _check_folder(folder: Path, seed: int, leave_out: str | None) -> None:
    """Raise CourseError unless patients can be made in ``folder`` without mixing two series of them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in sorted(folder.glob("Phantom_*")):
            if not place.is_dir():
                if place.name.removeprefix("Phantom_").isdigit():
                    raise CourseError(f"{place}: a file stands where a patient's folder belongs. Move it away.")
                continue  # the reader's own
            try:
                record = read_json(place / f"{place.name}_recipe.json")
                series = record["seed"], record.get("without")
            except (CourseError, KeyError, TypeError, AttributeError):
                continue  # a patient without a readable recipe is made anew
            if series != (seed, leave_out):
                without = f" without {series[1]}" if series[1] else ""
                raise CourseError(
                    f"{folder}: {place.name} in it belongs to seed {series[0]}{without}. Two series in one folder "
                    f"would be taken for one: give another folder, or delete this one."
                )
    except OSError as error:
        raise CourseError(f"{folder}: no patients can be made here ({error.strerror}). Give another folder.") from error
