"""Random variation of training slices: what changes from scanner to scanner and head to head, and not the diagnosis.

Networks trained on one scanner's pictures learn that scanner's greys. Each function here removes one such habit. All
take x (B, C, N, N), z-scores that are 0 outside the brain, draw from a torch generator, and vary every slice on its
own. Shown one by one in notebooks/02.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def augment(x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A varied copy of a batch.

    Args:
        x: (B, C, N, N), z-scores, 0 outside the brain. It stays 0 there.
        y: (B, R, N, N), masks of 0 and 1. They are moved with the picture, and stay 0 and 1.
        generator: what to draw from; the same state gives the same variation.
    """
    x, y = flip(x, y, generator)
    x, y = move(x, y, generator)
    brain = x != 0
    x = tone(x, generator)
    x = contrast(x, generator)
    x = shade(x, generator)
    x = blur(x, generator)
    x = noise(x, generator)
    return torch.where(brain, x, 0.0), y


def flip(x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Swap left and right, in a sagittal slice front and back, in half of the slices."""
    swapped = (_uniform(len(x), generator, x) < 0.5)[:, None, None, None]
    return torch.where(swapped, x.flip(-1), x), torch.where(swapped, y.flip(-1), y)


def move(x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Turn (by about 14 degrees), scale (about 12 %) and shift (about 2.5 % of the side) each slice."""
    angle = 0.25 * _normal(len(x), generator, x)
    scale = torch.exp(0.12 * _normal(len(x), generator, x))
    shift = 0.05 * _normal((len(x), 2), generator, x)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(rows, list(x.shape), align_corners=False)
    moved = F.grid_sample(torch.cat([x, y], dim=1), grid, align_corners=False)
    return moved[:, : x.shape[1]], (moved[:, x.shape[1] :] > 0.5).float()


def tone(x: Tensor, generator: Generator, low: float = -3.0, high: float = 4.0) -> Tensor:
    """Bend the grey scale between ``low`` and ``high`` by a random power: darks and brights move, their order stays."""
    share = ((x - low) / (high - low)).clamp(min=1e-3)
    power = torch.exp(0.35 * _normal((*x.shape[:2], 1, 1), generator, x))
    return share**power * (high - low) + low


def contrast(x: Tensor, generator: Generator) -> Tensor:
    """Stretch and offset the greys of each channel."""
    stretch = torch.exp(0.25 * _normal((*x.shape[:2], 1, 1), generator, x))
    return x * stretch + 0.3 * _normal((*x.shape[:2], 1, 1), generator, x)


def shade(x: Tensor, generator: Generator) -> Tensor:
    """Add a smooth shading, as an uneven coil leaves it."""
    coarse = 0.25 * _normal((*x.shape[:2], 4, 4), generator, x)
    return x + F.interpolate(coarse, size=x.shape[-2:], mode="bicubic", align_corners=False)


def blur(x: Tensor, generator: Generator) -> Tensor:
    """Average each pixel with its eight neighbours, in three slices out of ten."""
    smooth = F.avg_pool2d(F.pad(x, [1] * 4, mode="replicate"), kernel_size=3, stride=1)
    chosen = (_uniform(len(x), generator, x) < 0.3)[:, None, None, None]
    return torch.where(chosen, smooth, x)


def noise(x: Tensor, generator: Generator) -> Tensor:
    """Add noise, of up to 0.2 standard deviations of the brain."""
    strength = 0.2 * _uniform(len(x), generator, x)[:, None, None, None]
    return x + strength * _normal(x.shape, generator, x)


def _uniform(length: int, generator: Generator, like: Tensor) -> Tensor:
    return torch.rand(length, generator=generator, device=generator.device).to(like.device)


def _normal(shape: int | tuple[int, ...], generator: Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(like.device)
