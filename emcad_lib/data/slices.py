"""Slices from the cache, by number: what a training run and a lesson read.

A slice lies centred on a square canvas of 192 mm, which holds any human brain, and is then resampled to the wanted
number of pixels. For 224 px and more the canvas has as many millimetres as pixels, and nothing is resampled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from emcad_lib.data.augment import augment
from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.labels import REGIONS
from emcad_lib.data.preprocess import CACHE_VERSION, dequantise
from emcad_lib.files import CourseError, read_json, sha256

__all__ = ["CANVAS_MM", "Cache", "EpochSampler", "SliceDataset", "augment", "fit_canvas"]

CANVAS_MM = 192  # one voxel of BraTS is 1 mm


class Cache:
    """The prepared patients of one folder, opened for reading.

    Attributes:
        folder: where it is.
        manifest: what was made from what, by which version.
        hash: SHA-256 of the manifest.

    Raises:
        CourseError: when there is no cache, or another version made it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
        again = f"python data_scripts/preprocess.py DATA_DIR --out {self.folder}"
        if not path.is_file():
            raise CourseError(f"{self.folder}: there is no cache of prepared patients here. Make one: {again}")
        self.manifest = read_json(path)
        version = self.manifest.get("version") if isinstance(self.manifest, dict) else None
        if version != CACHE_VERSION:
            raise CourseError(
                f"{path}: this cache was made by version {version}; this library reads version {CACHE_VERSION}. "
                f"Make it again: {again}"
            )
        self.hash = sha256(path)
        self._open: dict[tuple[str, str], NDArray[np.uint8]] = {}

    def names(self, split: str | None = None) -> list[str]:
        """The patients of ``train``, ``val`` or ``test``, or all of them, sorted."""
        return sorted(name for name, entry in self.manifest["patients"].items() if split in (None, entry["split"]))

    def images(self, name: str) -> NDArray[np.uint8]:
        """A patient's slices: uint8 (S, 4, H, W), see ``preprocess.dequantise``. Only what is read is loaded."""
        entry = self.manifest["patients"][name]
        return self._array(name, "images.npy", (entry["slices"], len(MODALITIES), *entry["shape"]))

    def regions(self, name: str) -> NDArray[np.uint8]:
        """A patient's region bits: uint8 (S, H, W). Only what is read is loaded."""
        entry = self.manifest["patients"][name]
        return self._array(name, "regions.npy", (entry["slices"], *entry["shape"]))

    def _array(self, name: str, file: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        if (name, file) not in self._open:
            path = self.folder / "patients" / name / file
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise CourseError(f"Patient {name}, {path}: it can't be read ({error}). Prepare it again.") from error
            if array.shape != shape or array.dtype != np.uint8:
                raise CourseError(
                    f"Patient {name}, {path}: it holds {array.dtype} {array.shape}, the manifest says uint8 {shape}. "
                    "Delete the patient's folder and prepare the patients again."
                )
            self._open[name, file] = array
        return self._open[name, file]

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would travel to a worker process as a copy of the whole file; the worker opens its own.
        return self.__dict__ | {"_open": {}}


class SliceDataset(Dataset):
    """The slices of some patients, ready for the network.

    ``dataset[i]`` is ``(x, y)``: x float32 (C, N, N), z-scores, 0 outside the brain; y float32 (R, N, N), 1 inside the
    region and 0 elsewhere. ``dataset.__getitems__([i, ...])`` gives a whole batch (B, ...) at once, which is faster.

    Args:
        cache: where the slices are.
        split: train, val, test, or None for all patients.
        image_size: N, pixels along each side.
        modalities: the C channels of x.
        regions: the R channels of y.
        patients: only these of the split's patients.
    """

    def __init__(
        self,
        cache: Cache,
        split: str | None,
        image_size: int,
        modalities: Sequence[str] = ("flair", "t1ce", "t2"),
        regions: Sequence[str] = ("whole",),
        patients: Sequence[str] | None = None,
    ) -> None:
        self.cache = cache
        self.image_size = image_size
        self.channels = [_index(MODALITIES, name, "modality") for name in modalities]
        self.bits = [_index(REGIONS, name, "region") for name in regions]
        chosen = cache.names(split)
        self.patients = chosen if patients is None else [name for name in chosen if name in set(patients)]
        lengths = [cache.manifest["patients"][name]["slices"] for name in self.patients]
        self.ends = np.cumsum([0, *lengths])  # patient p has the slices ends[p] .. ends[p + 1] - 1

    def __len__(self) -> int:
        return int(self.ends[-1])

    def where(self, index: int) -> tuple[str, int]:
        """The patient of a slice, and its place in that patient's stack."""
        patient = int(np.searchsorted(self.ends, index, side="right")) - 1
        return self.patients[patient], int(index - self.ends[patient])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        side = max(CANVAS_MM, self.image_size)
        images = np.zeros((len(indices), len(self.channels), side, side), dtype=np.uint8)
        regions = np.zeros((len(indices), side, side), dtype=np.uint8)
        by_patient: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, index in enumerate(indices):
            name, number = self.where(index)
            by_patient[name].append((place, number))
        for name, pairs in by_patient.items():
            stack, marks = self.cache.images(name), self.cache.regions(name)
            to, of = _centred(stack.shape[2:], side)
            for place, number in pairs:
                images[place][:, to[0], to[1]] = stack[number][self.channels][:, of[0], of[1]]
                regions[place][to] = marks[number][of]
        x = _resample(dequantise(torch.from_numpy(images)), self.image_size)
        bits = torch.stack([torch.from_numpy(regions >> bit & 1) for bit in self.bits], dim=1).float()
        return x, (_resample(bits, self.image_size, mask=True) >= 0.5).float()


def fit_canvas(x: Tensor, image_size: int, mask: bool = False) -> Tensor:
    """Slices (..., H, W) of 1 mm pixels, centred on the training's canvas: (..., N, N), float32.

    Args:
        x: z-scores; or masks, of 0 and 1.
        image_size: N.
        mask: x are masks: a pixel is set where half of it or more is.
    """
    side = max(CANVAS_MM, image_size)
    to, of = _centred(tuple(x.shape[-2:]), side)
    canvas = torch.zeros(*x.shape[:-2], side, side)
    canvas[..., to[0], to[1]] = x[..., of[0], of[1]].float()
    resampled = _resample(canvas.view(-1, 1, side, side), image_size, mask)
    resampled = (resampled >= 0.5).float() if mask else resampled
    return resampled.view(*x.shape[:-2], image_size, image_size)


class EpochSampler(Sampler[int]):
    """The numbers of an epoch's slices, shuffled: the same for the same seed and epoch, so that a run can be resumed.

    Args:
        length: how many slices there are.
        slices_per_epoch: how many to draw, without repetition; 0, or more than there are: all.
        seed: of the shuffling.
    """

    def __init__(self, length: int, slices_per_epoch: int = 0, seed: int = 0) -> None:
        self.length, self.seed, self.epoch = length, seed, 0
        self.drawn = min(slices_per_epoch, length) or length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose slices come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.drawn

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter(order[: self.drawn].tolist())


def _index(known: Sequence[str], name: str, what: str) -> int:
    if name not in known:
        raise CourseError(f"There is no {what} {name!r}. Choose from: {', '.join(known)}.")
    return known.index(name)


def _centred(shape: Sequence[int], side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a slice goes on a square canvas, and which part of it: all, unless it's larger than the canvas."""
    to, of = [], []
    for length in shape:
        kept = min(length, side)
        start, skipped = (side - kept) // 2, (length - kept) // 2
        to.append(slice(start, start + kept))
        of.append(slice(skipped, skipped + kept))
    return (to[0], to[1]), (of[0], of[1])


def _resample(x: Tensor, image_size: int, mask: bool = False) -> Tensor:
    """Canvases (B, C, side, side) at the wanted size; of masks, the share of each pixel that is set."""
    if x.shape[-1] == image_size:
        return x
    if mask:
        return F.interpolate(x, size=(image_size, image_size), mode="area")
    return F.interpolate(x, size=(image_size, image_size), mode="bilinear", antialias=True, align_corners=False)
