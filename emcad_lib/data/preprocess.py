"""From a patient's volumes to slices that a network can learn from, kept in a cache on disk.

Each patient becomes two arrays: ``images.npy``, one byte per pixel, and ``regions.npy``, the region bits. They are read
by memory map, so that a training run holds only the slices that it looks at. Built step by step in notebooks/02.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emcad_lib.data.brats import MODALITIES, Patient, PatientError, Scan, find_patients, read_scan
from emcad_lib.files import CourseError, read_json, replacing, sha256, write_json
from emcad_lib.progress import progress

CACHE_VERSION = 1  # raise it whenever the same patient gives other arrays: older caches are then refused
SPLITS = ("train", "val", "test")
CLIP = 5.0  # z-scores beyond this are cut; about one voxel in ten thousand
LEVELS = 254  # of brightness inside the brain: an even number, so that none of them stands for z = 0 exactly

Array = TypeVar("Array", NDArray[Any], Tensor)
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Prepared:
    """One patient's axial slices, seen as radiologists see them: front at the top, the patient's right at the left.

    Attributes:
        images: uint8 (S, 4, H, W), see `quantise`; slices from bottom to top, modalities in the order of MODALITIES.
        regions: uint8 (S, H, W), region bits, or None without a segmentation.
        box: where the slices lie in the scan: its first and last-plus-one index along each axis (left, back, top).
        mean, std: of each modality inside the brain, before normalisation.
    """

    images: NDArray[np.uint8]
    regions: NDArray[np.uint8] | None
    box: Box
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def restore(self, values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """Put values on the slices (S, H, W) back where they came from: (I, J, K) = ``shape``, 0 around them."""
        volume = np.zeros(tuple(shape), dtype=values.dtype)
        (i0, i1), (j0, j1), (k0, k1) = self.box
        volume[i0:i1, j0:j1, k0:k1] = values.transpose(2, 1, 0)
        return volume


@dataclass(frozen=True)
class Report:
    """What `preprocess` did: names of patients prepared now and of those reused, and what was left out and why."""

    prepared: list[str]
    reused: list[str]
    problems: list[PatientError]


def normalise(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Z-scores of each modality over the voxels where it shows brain, cut at +-5; 0 elsewhere.

    MRI has no unit: the same tissue is 300 in one scanner and 900 in the next. After this, 0 is the patient's average
    brain, and 1 is one standard deviation brighter. Each modality has its own brain mask, because sometimes one of them
    was taken over a part of the head only.

    Args:
        images: (4, ...), 0 outside the brain.
    """
    return _normalise(images)[0]


def _normalise(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[float], list[float]]:
    z = np.zeros(images.shape, dtype=np.float32)
    means, stds = [], []
    for image, scores in zip(images, z, strict=True):
        brain = image != 0
        values = image[brain]
        mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        if not std > 0:
            raise ValueError("the image has one and the same value everywhere in the brain")
        scores[brain] = np.clip((values - mean) / std, -CLIP, CLIP)
        means.append(mean)
        stds.append(std)
    return z, means, stds


def quantise(z: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Z-scores as one byte each: 0 outside the brain, 1 to 254 from -5 to 5 inside. Off by 0.02 at most."""
    levels = np.floor((z + CLIP) * (LEVELS / (2 * CLIP))).clip(0, LEVELS - 1).astype(np.uint8) + 1
    return np.where(brain, levels, np.uint8(0))


def dequantise(levels: Array) -> Array:
    """Bytes of `quantise` as float32 z-scores: exactly 0 outside the brain, never 0 inside. NumPy or torch."""
    step = 2 * CLIP / LEVELS
    if isinstance(levels, Tensor):
        return torch.where(levels > 0, levels.float() * step - (CLIP + step / 2), 0.0)
    return np.where(levels > 0, levels.astype(np.float32) * np.float32(step) - np.float32(CLIP + step / 2), 0)


def prepare_patient(scan: Scan) -> Prepared:
    """Crop a scan to its brain, normalise it and turn it into slices.

    Raises:
        ValueError: when a modality has no contrast.
    """
    box = _brain_box(scan.images)
    inside = tuple(slice(first, end) for first, end in box)
    cropped = scan.images[(slice(None), *inside)]  # (4, I, J, K)
    z, mean, std = _normalise(cropped)
    images = quantise(z, cropped != 0).transpose(3, 0, 2, 1)  # (S, 4, H, W) = (K, 4, J, I)
    regions = None if scan.regions is None else np.ascontiguousarray(scan.regions[inside].transpose(2, 1, 0))
    return Prepared(np.ascontiguousarray(images), regions, box, tuple(mean), tuple(std))


def _brain_box(images: NDArray[np.float32]) -> Box:
    """The smallest box that holds every voxel where any of the images (4, I, J, K) shows brain."""
    brain = np.zeros(images.shape[1:], dtype=bool)
    for image in images:
        brain |= image != 0
    bounds = []
    for axis in range(3):
        filled = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
        bounds.append((int(filled[0]), int(filled[-1]) + 1))
    return bounds[0], bounds[1], bounds[2]


def split_patients(names: Iterable[str], seed: int, fractions: Sequence[float] = (0.7, 0.15, 0.15)) -> dict[str, str]:
    """Deal patients out to train, val and test: whole patients, because slices of one head resemble each other.

    The same names and seed give the same split, in whatever order they come. With three patients or more no part is
    empty; two are dealt out to train and val; one is trained with.

    Args:
        names: of the patients.
        seed: of the deal.
        fractions: of the patients in train, val and test.
    """
    ordered = sorted(set(names))
    shuffled = [ordered[index] for index in np.random.default_rng(seed).permutation(len(ordered))]
    val, test = (max(1, round(fraction * len(shuffled))) for fraction in fractions[1:])
    if len(shuffled) < 3:
        val, test = len(shuffled) - 1, 0
    parts = {name: "val" for name in shuffled[:val]} | {name: "test" for name in shuffled[val : val + test]}
    return {name: parts.get(name, "train") for name in ordered}


def preprocess(
    data_dir: str | Path, cache_dir: str | Path, workers: int | None = None, seed: int = 0, limit: int | None = None
) -> Report:
    """Prepare all patients of a folder, several at once, and write the cache.

    A patient that is there already, from the same files and by the same version, is reused: an interrupted call goes on
    where it stopped. A patient that can't be read is left out, and the others go on.

    Args:
        data_dir: a folder of patients with segmentations.
        cache_dir: where the cache is, or will be.
        workers: processes at once; by default one per processor.
        seed: of the split.
        limit: take only the first so many patients, by name.

    Raises:
        CourseError: when no patient can be prepared, or the disk is full.
    """
    patients, problems = find_patients(data_dir, need_segmentation=True)
    patients = patients[:limit]
    cache_dir = Path(cache_dir)
    workers = max(1, min(workers or os.cpu_count() or 1, len(patients)))
    tasks = joblib.Parallel(n_jobs=workers, return_as="generator")(
        joblib.delayed(_prepare_into)(patient, cache_dir / "patients" / patient.name) for patient in patients
    )
    entries, reused = {}, []
    for patient, (outcome, was_there) in zip(
        patients, progress(tasks, "Preparing patients", total=len(patients), unit="patient"), strict=True
    ):
        if isinstance(outcome, PatientError):
            problems.append(outcome)
        else:
            entries[patient.name] = outcome
            reused += [patient.name] if was_there else []
    if not entries:
        raise CourseError(
            f"{data_dir}: none of its {len(problems)} patients can be prepared.\n  "
            + "\n  ".join(map(str, problems[:10]))
        )
    for name, split in split_patients(entries, seed).items():
        entries[name]["split"] = split
    write_json(
        cache_dir / "manifest.json",
        {"version": CACHE_VERSION, "split_seed": seed, "modalities": list(MODALITIES), "patients": entries},
    )
    return Report([name for name in entries if name not in reused], reused, problems)


def _prepare_into(patient: Patient, folder: Path) -> tuple[dict[str, Any] | PatientError, bool]:
    """Prepare one patient into ``folder``, unless it's there. Returns its manifest entry, and whether it was there."""
    assert patient.segmentation is not None
    try:
        sources = {path.name: sha256(path) for path in sorted({*patient.images.values(), patient.segmentation})}
    except OSError as error:
        file = error.filename or patient.segmentation
        return PatientError(patient.name, file, f"it can't be read ({error.strerror})", "Check its permissions"), False
    known = _finished(folder)
    if known is not None and known["sources"] == sources:
        return known, True
    try:
        scan = read_scan(patient)
        prepared = prepare_patient(scan)
    except PatientError as error:
        return error, False
    except ValueError as error:
        return PatientError(patient.name, patient.images[MODALITIES[0]], str(error), "Fetch the patient again"), False
    assert prepared.regions is not None
    entry = {
        "slices": len(prepared.images),
        "shape": list(prepared.images.shape[2:]),
        "box": [list(bounds) for bounds in prepared.box],
        "spacing": list(scan.spacing),
        "tumour_slices": int((prepared.regions > 0).any(axis=(1, 2)).sum()),
        "mean": list(prepared.mean),
        "std": list(prepared.std),
        "sources": sources,
    }
    with replacing(folder) as beside:
        beside.mkdir()
        np.save(beside / "images.npy", prepared.images)
        np.save(beside / "regions.npy", prepared.regions)
        write_json(beside / "patient.json", {"version": CACHE_VERSION, **entry})
    return entry, False


def _finished(folder: Path) -> dict[str, Any] | None:
    """The manifest entry of a patient that is in the cache already, by this version; None if it isn't."""
    try:
        entry = read_json(folder / "patient.json")
        return entry if entry.pop("version") == CACHE_VERSION else None
    except (CourseError, KeyError, AttributeError):
        return None
