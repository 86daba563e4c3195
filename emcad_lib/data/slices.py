"""Slices from the cache, as a network wants them: square, of one size, a batch at a time.

A slice is centred on a canvas of 192 mm a side, which holds any human brain, and is then resampled to the size in
pixels that was asked for. From 192 pixels on the canvas has a pixel per millimetre and nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from emcad_lib.data.augment import augment
from emcad_lib.data.cache import Cache
from emcad_lib.data.labels import REGIONS
from emcad_lib.data.planes import PLANES, pixel_mm, recut
from emcad_lib.data.prepare import dequantise
from emcad_lib.data.scan import MODALITIES
from emcad_lib.files import CourseError

__all__ = ["CANVAS_MM", "Cache", "EpochSampler", "SliceDataset", "augment", "fit_canvas"]

CANVAS_MM = 192  # a pixel of BraTS is 1 mm wide

_HALF = 0.5 - 1e-4  # half a pixel of tumour is tumour, whatever rounding does to the half

_ArrayOrTensor = TypeVar("_ArrayOrTensor", NDArray[Any], Tensor)


class Place(NamedTuple):
    """Which slice of a dataset it is: slice ``number`` of this patient in this plane."""

    patient: str
    plane: str
    number: int


class SliceDataset(Dataset[tuple[Tensor, Tensor]]):
    """The slices of one split: ``dataset[i]`` is x float32 (C, N, N), z-scores, and y float32 (R, N, N), 0 or 1.

    Args:
        cache: where from.
        split: "train", "val" or "test"; None is all of them.
        image_size: N, pixels a side.
        modalities: the C channels of x.
        regions: the R channels of y.
        patients: only these patients of the split.
        planes: each patient's slices in each of these planes.
        neighbours: with each slice come so many below and above it, as further channels: C for the lowest, then for the
            next. At either end of the head the last slice is repeated.

    Raises:
        CourseError: no patient in the split, or one of ``patients`` isn't; an unknown modality, region or plane; a file
            of the cache is missing or damaged; a patient whose voxels aren't 1 mm in a plane that is wanted.
    """

    def __init__(
        self,
        cache: Cache,
        split: str | None,
        image_size: int,
        modalities: Sequence[str] = ("flair", "t1ce", "t2"),
        regions: Sequence[str] = ("whole",),
        patients: Sequence[str] | None = None,
        planes: Sequence[str] = ("axial",),
        neighbours: int = 0,
    ) -> None:
        self.cache = cache
        self.image_size = image_size
        self._channels = _places(modalities, MODALITIES, "modality")
        self._bits = np.array(_places(regions, REGIONS, "region"), dtype=np.uint8)
        available = cache.names(split)
        self.patients = available if patients is None else list(patients)
        if strangers := sorted(set(self.patients) - set(available)):
            raise CourseError(
                f"{cache.folder}: not among the patients of the split {split!r}: {', '.join(strangers)}. "
                f"Choose from Cache.names({split!r})."
            )
        if not self.patients:
            raise CourseError(
                f"{cache.folder}: the split {split!r} holds no patient, or none was asked for. Prepare three patients "
                f"or more, so that each split gets one."
            )
        _places(planes, PLANES, "plane")
        self._steps = np.arange(-neighbours, neighbours + 1)
        self._parts = [(name, plane) for name in self.patients for plane in planes]
        # Look at every file now: a message in the middle of an epoch would come hours too late.
        self._ends = np.cumsum([self._length(name, plane) for name, plane in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def where(self, index: int) -> Place:
        """The patient of slice ``index``, which of that patient's slices it is, and in which plane."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no slice {index}: there are {len(self)}.")
        part = int(np.searchsorted(self._ends, index, side="right"))
        name, plane = self._parts[part]
        return Place(name, plane, index - (int(self._ends[part - 1]) if part else 0))

    def _length(self, name: str, plane: str) -> int:
        if plane != "axial":
            down, across = pixel_mm(tuple(self.cache.manifest["patients"][name]["spacing"]), plane)
            if max(abs(down - 1), abs(across - 1)) > 0.02:
                raise CourseError(
                    f"Patient {name}: {plane} slices have pixels of {down:.2f} x {across:.2f} mm, where 1 x 1 mm is "
                    f"needed. Take axial slices only, or resample the patient's files to 1 mm."
                )
        return len(recut(self.cache.regions(name), plane))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The slices of these numbers as a batch: x (B, C, N, N), C for each neighbour too, and y (B, R, N, N)."""
        side = max(CANVAS_MM, self.image_size)
        x = np.zeros((len(indices), len(self._steps), len(self._channels), side, side), dtype=np.float32)
        # A mask that is resampled is bool. Else it's written as the numbers that it becomes: a pass over it less.
        mask_type = np.float32 if side == self.image_size else bool
        y = np.zeros((len(indices), len(self._bits), side, side), dtype=mask_type)
        for slot, index in enumerate(indices):
            name, plane, number = self.where(int(index))
            images, regions = recut(self.cache.images(name), plane), recut(self.cache.regions(name), plane)
            (rows, top), (columns, left) = (_centred(length, side) for length in images.shape[2:])
            # Byte by byte to z-scores while the slice is still in the processor's cache, and no byte outside it.
            for stacked, near in zip(x[slot], np.clip(number + self._steps, 0, len(images) - 1), strict=True):
                stacked[:, top, left] = dequantise(images[near, :, rows, columns][self._channels])
            y[slot, :, top, left] = regions[number, rows, columns] >> self._bits[:, None, None] & 1
        slices = torch.from_numpy(x).flatten(1, 2)
        return _resample(slices, self.image_size), _resample(torch.from_numpy(y), self.image_size).float()


def fit_canvas(slices: _ArrayOrTensor, image_size: int) -> _ArrayOrTensor:
    """Centre slices (..., H, W) of 1 mm pixels on the canvas and resample them to (..., N, N), as the dataset does.

    Args:
        slices: array or tensor. Floating point is taken as images, which are resampled with an antialiasing filter;
            bool as masks, where a pixel is set when half of its area or more is.
        image_size: N. Up to 192 the canvas has 192 mm a side, above that it has as many millimetres as pixels. What
            doesn't fit is cut off evenly.

    Raises:
        TypeError: for whole numbers. Bytes of the cache must be z-scores first (``dequantise``).
    """
    if not isinstance(slices, Tensor):
        return fit_canvas(torch.from_numpy(np.array(slices)), image_size).numpy()
    if not (slices.is_floating_point() or slices.dtype == torch.bool):
        raise TypeError(f"Slices are floating point and masks are bool, but these are {slices.dtype}.")
    side = max(CANVAS_MM, image_size)
    (rows, top), (columns, left) = (_centred(length, side) for length in slices.shape[-2:])
    canvas = slices.new_zeros((*slices.shape[:-2], side, side))
    canvas[..., top, left] = slices[..., rows, columns]
    return _resample(canvas, image_size)


class EpochSampler(Sampler[int]):
    """Which slices an epoch shows, in which order: the same for the same seed and epoch, also in a resumed run.

    Args:
        length: how many slices there are.
        slices_per_epoch: how many to draw, each once at most; 0, or more than there are, is all.
        seed: another seed draws others.
    """

    def __init__(self, length: int, slices_per_epoch: int = 0, seed: int = 0) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0
        self._drawn = min(slices_per_epoch or length, length)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose slices come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._drawn

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter(order[: self._drawn].tolist())


def _places(names: Sequence[str], known: tuple[str, ...], what: str) -> list[int]:
    for name in names:
        if name not in known:
            raise CourseError(f"There is no {what} {name!r}. Choose from: {', '.join(known)}.")
    return [known.index(name) for name in names]


def _centred(length: int, side: int) -> tuple[slice, slice]:
    """Which part of ``length`` pixels to take, and where it lies on a canvas of ``side`` pixels."""
    kept = min(length, side)
    cut, margin = (length - kept) // 2, (side - kept) // 2
    return slice(cut, cut + kept), slice(margin, margin + kept)


def _resample(canvas: Tensor, image_size: int) -> Tensor:
    """A square canvas (..., M, M) at image_size: float antialiased, bool set where half of the area or more is."""
    side = canvas.shape[-1]
    if side == image_size:
        return canvas
    if canvas.dtype == torch.bool:
        share = _overlap(side, image_size).to(canvas.device)  # (N, M)
        return share @ canvas.float() @ share.T >= _HALF
    flat = canvas.reshape(-1, 1, side, side)
    flat = F.interpolate(flat, size=(image_size, image_size), mode="bilinear", antialias=True, align_corners=False)
    return flat.reshape(*canvas.shape[:-2], image_size, image_size)


@lru_cache
def _overlap(fine: int, coarse: int) -> Tensor:
    """(coarse, fine): of each coarse pixel, the share of its width that each fine pixel covers. Rows add up to 1."""
    edges = torch.arange(coarse + 1, dtype=torch.float64) * fine / coarse
    starts = torch.arange(fine, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)
    return (covered.clamp(min=0) * coarse / fine).float()
