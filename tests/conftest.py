"""Patients to test with: tiny ones in every naming, real-size phantoms, and real ones where there are some.

Real patients may not be shipped. Where the environment's EMCAD_BRATS_DIR names a folder of them, the files called
test_real_*.py are collected too.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

# Before torch is imported, and for notebooks' kernels too. The tests' networks are too small to share among threads,
# and make test keeps every core busy with tests of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A process with torch, timm and pandas holds about a million objects. Python looks through them for cycles whenever
# some thousand new ones are there, and a figure or a training makes them by the thousand: 7 % of a test's time.
gc.set_threshold(50_000, 20, 50)

BRATS_DIR = os.environ.get("EMCAD_BRATS_DIR", "")
collect_ignore_glob = [] if BRATS_DIR else ["*test_real_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By far the longest test comes first, or else one core waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_real_course.py")


TINY_SHAPE = (48, 48, 24)
LPS_AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])  # of every BraTS file

# naming -> where the patients lie, a patient's name, what joins name and modality, the words in flair-t1-t1ce-t2 order
NAMINGS = {
    "2018": ("HGG", "Brats18_TCIA_{:03d}_1", "_", ("flair", "t1", "t1ce", "t2", "seg")),
    "2020": ("", "BraTS20_Training_{:03d}", "_", ("flair", "t1", "t1ce", "t2", "seg")),
    "2021": ("", "BraTS2021_{:05d}", "_", ("flair", "t1", "t1ce", "t2", "seg")),
    "2023": ("", "BraTS-GLI-{:05d}-000", "-", ("t2f", "t1n", "t1c", "t2w", "seg")),
    "kaggle": (
        "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData", "BraTS20_Training_{:03d}", "_",
        ("flair", "t1", "t1ce", "t2", "seg"),
    ),
    "decathlon": ("Task01_BrainTumour", "BRATS_{:03d}", "", ()),
}  # fmt: skip

# tissue of the tiny tumours (1 necrosis, 2 oedema, 3 enhancing) -> label, by naming
LABELS = {"2023": (0, 1, 2, 3), "decathlon": (0, 2, 1, 3)}
LABELS_UNTIL_2021 = (0, 1, 2, 4)


def tiny_volumes(index: int, seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Images (4, 48, 48, 24), flair to t2, and tissues (48, 48, 24), in LPS: a ball in an egg of a brain."""
    random = np.random.default_rng((seed, index))
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in TINY_SHAPE), indexing="ij"), axis=-1)  # (48, 48, 24, 3)
    middle = np.array([23.5, 23.5, 11.5])
    brain = np.linalg.norm((grid - middle) / (19, 22, 11), axis=-1) < 1  # no brain in the lowest and highest slice
    distance = np.linalg.norm(grid - middle - random.uniform(-1, 1, 3) * (7, 8, 2), axis=-1)
    tissue = np.zeros(TINY_SHAPE, dtype=np.uint8)
    for radius, value in ((7.5, 2), (4.5, 3), (2.5, 1)):
        tissue[(distance < radius * random.uniform(0.9, 1.1)) & brain] = value
    # Rows flair, t1, t1ce, t2; columns healthy, necrosis, oedema, enhancing.
    grey = np.array([[300, 400, 620, 560], [500, 330, 380, 360], [520, 390, 400, 1000], [400, 900, 760, 800]])
    images = np.stack([row[tissue] for row in grey]) + random.normal(0, 25, (4, *TINY_SHAPE))
    return (images.clip(min=1) * brain).astype(np.int16), tissue


def write_tiny_patients(
    folder: Path, patients: int = 3, naming: str = "2020", suffix: str = ".nii.gz", seed: int = 0, first: int = 1
) -> list[Path]:
    """Write patients number ``first`` and up, and return their folders (the 4D files in the Decathlon's case).

    "kaggle" adds the two tables of that copy, and calls the first patient's segmentation as it calls patient 355's;
    "decathlon" adds a scan without labels, and the hidden files that the real archive holds.
    """
    place, name_format, joint, words = NAMINGS[naming]
    home = folder / place
    labels = np.array(LABELS.get(naming, LABELS_UNTIL_2021), dtype=np.uint8)
    written = []
    for index in range(first, first + patients):
        name = name_format.format(index)
        images, tissue = tiny_volumes(index, seed)
        if naming == "decathlon":
            written.append(save(home / "imagesTr" / f"{name}{suffix}", np.moveaxis(images, 0, -1)))
            save(home / "labelsTr" / f"{name}{suffix}", labels[tissue])
            (home / "imagesTr" / f"._{name}{suffix}").write_bytes(b"Mac OS X")
        else:
            for word, array in zip(words, (*images, labels[tissue]), strict=True):
                save(home / name / f"{name}{joint}{word}{suffix}", array)
            written.append(home / name)
    if naming == "decathlon":
        save(home / "imagesTs" / f"BRATS_900{suffix}", np.moveaxis(tiny_volumes(900, seed)[0], 0, -1))
    if naming == "kaggle":
        (written[0] / f"{written[0].name}_seg{suffix}").rename(written[0] / f"W39_1998.09.19_Segm{suffix}")
        for table in ("name_mapping.csv", "survival_info.csv"):
            (home / table).write_text("Brats20ID\n")
    return written


def save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] = LPS_AFFINE) -> Path:
    """Write an array as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)
    return path


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random weights and inputs in every run, whichever tests ran before."""
    if "torch" in sys.modules:  # else the test needs none, and shouldn't wait for it
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def tiny_patients() -> Callable[..., list[Path]]:
    """Writes tiny patients: ``tiny_patients(folder, patients=3, naming="2020", suffix=".nii.gz", seed=0, first=1)``."""
    return write_tiny_patients


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of six tiny patients: four to train with, one to validate, one to test."""
    from emcad_lib.data.preprocess import preprocess

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_patients(folder / "patients", 6)
    preprocess(folder / "patients", folder / "cache", workers=1)
    return folder / "cache"


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four phantom patients of real size."""
    from emcad_lib.data.phantom import make_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    make_phantoms(folder, patients=4)
    return folder


@pytest.fixture(scope="session")
def phantom_cache(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the four phantom patients."""
    from emcad_lib.data.preprocess import preprocess

    cache = tmp_path_factory.mktemp("phantom_cache")
    preprocess(phantoms, cache)
    return cache


@pytest.fixture(scope="session")
def brats_dir() -> Path:
    """The folder of real patients that EMCAD_BRATS_DIR names; only for files called test_real_*.py."""
    return Path(BRATS_DIR)
