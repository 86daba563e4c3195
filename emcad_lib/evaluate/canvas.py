"""Where a slice lies for a network, at the pixel size of its training, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from emcad_lib.data.slices import CANVAS_MM


@dataclass(frozen=True)
class Canvas:
    """Where a slice lies for the network, and the way back.

    Attributes:
        padding: pixels to add to a slice at the left, right, top and bottom.
        room: height and width of the padded slice.
        network: the same in pixels of the network, multiples of 32.
    """

    padding: tuple[int, ...]
    room: tuple[int, int]
    network: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int], pixel_mm: tuple[float, float], image_size: int) -> Canvas:
        """The canvas of the training (see ``slices.py``), or larger where slices of ``shape`` need it."""
        trained_mm = max(CANVAS_MM, image_size) / image_size  # per pixel of the network
        padding, room, network = [], [], []
        for length, mm in zip(shape, pixel_mm, strict=True):
            needed = max(image_size, length * mm / trained_mm)
            network.append(math.ceil(round(needed / 32, 6)) * 32)
            room.append(max(length, round(network[-1] * trained_mm / mm)))
            before = (room[-1] - length) // 2
            padding.append((before, room[-1] - length - before))
        return cls((*padding[1], *padding[0]), (room[0], room[1]), (network[0], network[1]))

    def put(self, x: Tensor) -> Tensor:
        """Slices (B, C, H, W) onto the canvas: (B, C, N, M)."""
        return _resample(F.pad(x, self.padding), self.network)

    def take(self, x: Tensor) -> Tensor:
        """Maps (B, R, N, M) of the canvas back to the slices' own pixels: (B, R, H, W)."""
        return F.pad(_resample(x, self.room), [-width for width in self.padding])  # less than nothing added: cropped


def _resample(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
