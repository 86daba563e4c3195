"""Random variation of training slices: what changes from scanner to scanner and head to head, and not the diagnosis.

Networks trained on one scanner's pictures learn that scanner's greys. Each function here removes one such habit. All
take x (B, C, N, N), z-scores that are 0 outside the brain, draw from a torch generator, and vary every slice on its
own. Shown one by one in notebooks/02.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

STANDARD = ("flip", "move", "tone", "contrast", "shade", "blur", "noise")
VARIATIONS = (*STANDARD, "elastic")


def augment(
    x: Tensor, y: Tensor, generator: Generator, variations: Sequence[str] = STANDARD, slices: int = 1
) -> tuple[Tensor, Tensor]:
    """A varied copy of a batch.

    Args:
        x: (B, C, N, N), z-scores, 0 outside the brain. It stays 0 there.
        y: (B, R, N, N), masks of 0 and 1. They are moved with the picture, and stay 0 and 1.
        generator: what to draw from; the same state gives the same variation.
        variations: in which ways, of VARIATIONS.
        slices: how many neighbouring slices the channels are of. A modality's greys change alike in all of them.
    """
    if "flip" in variations:
        x, y = flip(x, y, generator)
    if "move" in variations:
        x, y = move(x, y, generator)
    if "elastic" in variations:
        x, y = elastic(x, y, generator)
    brain = x != 0
    if "tone" in variations:
        x = tone(x, generator, slices=slices)
    if "contrast" in variations:
        x = contrast(x, generator, slices)
    if "shade" in variations:
        x = shade(x, generator, slices)
    if "blur" in variations:
        x = blur(x, generator)
    if "noise" in variations:
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
    return _sample(x, y, F.affine_grid(rows, list(x.shape), align_corners=False))


def elastic(x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Bend each slice smoothly, by some 3 % of its side, as no two heads are alike."""
    coarse = 0.06 * _normal((len(x), 2, 4, 4), generator, x)  # in halves of the side
    bend = F.interpolate(coarse, size=x.shape[-2:], mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    straight = torch.eye(2, 3, device=x.device).expand(len(x), 2, 3)
    return _sample(x, y, F.affine_grid(straight, list(x.shape), align_corners=False) + bend)


def tone(x: Tensor, generator: Generator, low: float = -3.0, high: float = 4.0, slices: int = 1) -> Tensor:
    """Bend the grey scale between ``low`` and ``high`` by a random power: darks and brights move, their order stays."""
    share = ((x - low) / (high - low)).clamp(min=1e-3)
    power = torch.exp(0.35 * _for_modalities((1, 1), x, generator, slices))
    return share**power * (high - low) + low


def contrast(x: Tensor, generator: Generator, slices: int = 1) -> Tensor:
    """Stretch and offset the greys of each channel."""
    stretch = torch.exp(0.25 * _for_modalities((1, 1), x, generator, slices))
    return x * stretch + 0.3 * _for_modalities((1, 1), x, generator, slices)


def shade(x: Tensor, generator: Generator, slices: int = 1) -> Tensor:
    """Add a smooth shading, as an uneven coil leaves it."""
    coarse = 0.25 * _for_modalities((4, 4), x, generator, slices)
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


def _sample(x: Tensor, y: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Slices and masks at the places (B, N, N, 2) of a grid."""
    moved = F.grid_sample(torch.cat([x, y], dim=1), grid, align_corners=False)
    return moved[:, : x.shape[1]], (moved[:, x.shape[1] :] > 0.5).float()


def _for_modalities(size: tuple[int, int], x: Tensor, generator: Generator, slices: int) -> Tensor:
    """Random numbers (B, C, *size), equal in each of the ``slices`` neighbours that the channels are of."""
    batch, channels = x.shape[:2]
    return _normal((batch, channels // slices, *size), generator, x).repeat(1, slices, 1, 1)


def _uniform(length: int, generator: Generator, like: Tensor) -> Tensor:
    return torch.rand(length, generator=generator, device=generator.device).to(like.device)


def _normal(shape: int | tuple[int, ...], generator: Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(like.device)
