"""A cache of prepared slices: patients are read once, and trained from as often as you like.

::

    CACHE/manifest.json              what was made from what, by which version; written last
    CACHE/patients/NAME/images.npy   uint8 (S, 4, H, W), see prepare.py
    CACHE/patients/NAME/regions.npy  uint8 (S, H, W), see labels.py
    CACHE/patients/NAME/record.json  this patient's part of the manifest

It's written by ``preprocess.py``. The arrays are memory maps: only the slices that are looked at are read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import emcad_lib
from emcad_lib.data.scan import MODALITIES
from emcad_lib.data.split import SPLITS
from emcad_lib.files import CourseError, read_json, sha256

CACHE_VERSION = 1  # raise it whenever the same patient gives other arrays or another record
MANIFEST = "manifest.json"
RECORD = "record.json"
ARRAYS = ("images.npy", "regions.npy")

_OPEN_PATIENTS = 200  # two files each, and a process may have 1024 open on many systems

Record = dict[str, Any]


class Cache:
    """A cache, opened for reading.

    Attributes:
        folder: where it lies.
        manifest: what was made from what.
        hash: SHA-256 of the manifest, and so of all that went into the cache.

    Raises:
        CourseError: there is no cache, it isn't finished, or another version made it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        if not path.is_file():
            what = "this cache isn't finished" if (self.folder / "patients").is_dir() else "there is no cache here"
            raise CourseError(f"{self.folder}: {what}. Run: {command(self.folder)}")
        try:
            self.manifest: dict[str, Any] = read_json(path)
        except CourseError as error:
            raise CourseError(f"{error} That is: {command(self.folder)}") from error
        version = self.manifest.get("version") if isinstance(self.manifest, dict) else None
        if version != CACHE_VERSION:
            maker = self.manifest.get("library", "unknown") if isinstance(self.manifest, dict) else "unknown"
            raise CourseError(
                f"{self.folder}: this cache has version {version} (made by emcad_lib {maker}), but emcad_lib "
                f"{emcad_lib.__version__} reads version {CACHE_VERSION}. Make it anew: {command(self.folder)}"
            )
        self.hash = sha256(path)
        self._open: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def names(self, split: str | None = None) -> list[str]:
        """The names of the patients in "train", "val" or "test", or of all, sorted."""
        if split not in (None, *SPLITS):
            raise CourseError(f"There is no split {split!r}. Choose one of: {', '.join(SPLITS)}.")
        return sorted(name for name, record in self._patients.items() if split in (None, record["split"]))

    def images(self, name: str) -> NDArray[np.uint8]:
        """A patient's slices, uint8 (S, 4, H, W), as a read-only memory map; see ``prepare.py`` for what they hold.

        Raises:
            CourseError: no such patient; the file is missing, short or of another shape.
        """
        return self._arrays(name)[0]

    def regions(self, name: str) -> NDArray[np.uint8]:
        """A patient's region bits, uint8 (S, H, W), as a read-only memory map; otherwise as :meth:`images`."""
        return self._arrays(name)[1]

    @property
    def _patients(self) -> dict[str, Any]:
        patients: dict[str, Any] = self.manifest["patients"]
        return patients

    def _arrays(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if name not in self._patients:
            some = ", ".join(self.names()[:3])
            raise CourseError(
                f"{self.folder}: there is no patient {name!r} in this cache. Choose from Cache.names(), such as {some}."
            )
        arrays = self._open.pop(name, None)
        if arrays is None:
            record = self._patients[name]
            images, regions = (open_array(self.folder, name, file, record) for file in ARRAYS)
            arrays = images, regions
            if len(self._open) >= _OPEN_PATIENTS:
                del self._open[next(iter(self._open))]  # the one that wasn't used for longest
        self._open[name] = arrays
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory map would send the whole array to each of a DataLoader's workers.
        return {**self.__dict__, "_open": {}}


def open_array(cache_dir: Path, name: str, file: str, record: Record) -> NDArray[np.uint8]:
    """Map one of ARRAYS of a patient into memory, read-only.

    Raises:
        CourseError: it's missing, short, or not what the patient's record says.
    """
    path = patient_folder(cache_dir, name) / file
    again = f"Run again: {command(cache_dir)}"
    (left, right), (front, back), (bottom, top) = record["box"]
    channels = (len(MODALITIES),) if file == "images.npy" else ()
    shape = (top - bottom, *channels, back - front, right - left)
    try:
        _read_ahead(path)
        array: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except FileNotFoundError as error:
        raise CourseError(f"Patient {name}, {path}: this file of the cache is missing. {again}") from error
    except (OSError, ValueError, EOFError) as error:
        raise CourseError(f"Patient {name}, {path}: this file of the cache is cut short or damaged. {again}") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise CourseError(
            f"Patient {name}, {path}: this file of the cache holds {array.dtype} {array.shape} where uint8 {shape} is "
            f"expected. {again}"
        )
    return array


def _read_ahead(path: Path) -> None:
    """Ask the system to fetch a file as a whole, since the slices of a first epoch are read here and there."""
    if hasattr(os, "posix_fadvise"):  # not on Windows, and not on a Mac
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def patient_folder(cache_dir: Path, name: str) -> Path:
    """Where a patient lies in a cache."""
    return cache_dir / "patients" / name


def command(cache_dir: Path) -> str:
    """The command that makes, completes or mends a cache."""
    return f"python data_scripts/preprocess.py DATA_DIR --out {cache_dir}"
