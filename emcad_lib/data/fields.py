"""Random smooth fields, and smoothing, over a box of voxels: each one small matrix per axis.

A cubic B-spline, a linear interpolation and a Gaussian blur all act on the three axes one after the other, and along an
axis each of them is a matrix. Three matrix products over 4 million voxels take some 0.05 s on one core.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

COARSE = 4  # voxels between the points at which slowly varying quantities are worked out


class Fields:
    """The random fields of one patient, each found by its name.

    A field depends on the patient's seed and its own name only, never on which fields were asked for before it. So the
    same brain can be made with and without its tumour, voxel by voxel.

    Args:
        seed: of all its fields.
        shape: of the whole grid of voxels.
        box: the part of the grid that the fields are wanted for; by default all. Smooth fields are the same in any box.

    Attributes:
        shape: of the box, (I, J, K).
    """

    def __init__(self, seed: int, shape: Sequence[int], box: Sequence[slice] | None = None) -> None:
        self.seed = seed
        self._grid = tuple(shape)
        self._box = tuple(box or (slice(0, length) for length in shape))
        self.shape = tuple(part.stop - part.start for part in self._box)

    def random(self, name: str) -> np.random.Generator:
        """The random numbers that belong to ``name``."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(name.encode()),)))

    def smooth(
        self, name: str, size: float | Sequence[float], step: int = 1, part: Sequence[slice] | None = None
    ) -> Tensor:
        """A smooth field of mean 0 and variance 1, with bumps of about ``size`` mm, at every ``step``-th voxel.

        Random values on a grid with that spacing (of one number, or one for each axis), joined by cubic B-splines.

        Args:
            part: work out this part of the box only, which is quicker and gives the same values.
        """
        sizes = [size] * 3 if isinstance(size, int | float) else size
        parts = part or [slice(None, None, step)] * 3
        matrices = [
            _b_spline(length, width)[within][where]
            for length, width, within, where in zip(self._grid, sizes, self._box, parts, strict=True)
        ]
        values = self.random(name).standard_normal([matrix.shape[1] for matrix in matrices], dtype=np.float32)
        power = (151 / 315) ** 3  # the mean of the summed squared cubic B-spline weights, over three axes
        return along_axes(torch.from_numpy(values), matrices).div_(power**0.5)

    def noise(self, name: str) -> Tensor:
        """White noise of mean 0 and variance 1, another in each box."""
        return torch.from_numpy(self.random(name).standard_normal(self.shape, dtype=np.float32))


def along_axes(field: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply (a, b, c) by the matrices (I, a), (J, b), (K, c), each along its axis: (I, J, K)."""
    field = (matrices[0] @ field.flatten(1)).unflatten(1, field.shape[1:])
    return torch.matmul(matrices[1], field) @ matrices[2].T


def upsample(coarse: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear interpolation from every n-th point (i, j, k) to all (I, J, K), where I = n (i - 1) + 1."""
    step = (shape[0] - 1) // (coarse.shape[0] - 1)
    return along_axes(coarse, [_linear(length, step) for length in shape])


def blur(image: Tensor, sigma: Sequence[float], shift: Sequence[float] = (0, 0, 0)) -> Tensor:
    """Gaussian blur of an image (I, J, K), with a width in voxels for each axis; the edges count as going on for ever.

    Args:
        shift: by how many voxels the image moves towards lower indices on the way.
    """
    lengths = image.shape
    return along_axes(image, [_gaussian(*setting) for setting in zip(lengths, sigma, shift, strict=True)])


def white_noise_after(sigma: Sequence[float]) -> float:
    """The standard deviation that is left of white noise of standard deviation 1 after a Gaussian blur."""
    middle = 50  # of an axis long enough for the edges not to matter
    return float(np.prod([_gaussian(2 * middle + 1, width, 0)[middle].norm() for width in sigma]))


@lru_cache(maxsize=256)
def _b_spline(length: int, spacing: float) -> Tensor:
    """The weights (length, knots) of cubic B-splines with knots every ``spacing`` voxels."""
    knots = int(np.ceil((length - 1) / spacing)) + 4
    distance = np.abs(np.arange(length)[:, None] / spacing - (np.arange(knots)[None] - 1))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return torch.from_numpy(np.where(distance < 1, inner, outer).astype(np.float32))


@lru_cache(maxsize=256)
def _linear(length: int, step: int) -> Tensor:
    points = np.arange(0, length, step)
    weights = np.clip(1 - np.abs(np.arange(length)[:, None] - points[None]) / step, 0, None)
    return torch.from_numpy(weights.astype(np.float32))


def _gaussian(length: int, sigma: float, shift: float) -> Tensor:
    reach = int(np.ceil(4 * sigma + abs(shift))) + 1
    source = np.arange(-reach, length + reach)
    weights = np.exp(-((source[None] - shift - np.arange(length)[:, None]) ** 2) / (2 * sigma**2))
    weights[weights < 1e-5] = 0  # numbers too small for ordinary float32 would slow every later step down tenfold
    weights /= weights.sum(1, keepdims=True)
    inside = weights[:, reach : reach + length].copy()
    inside[:, 0] += weights[:, :reach].sum(1)
    inside[:, -1] += weights[:, reach + length :].sum(1)
    return torch.from_numpy(inside.astype(np.float32))
