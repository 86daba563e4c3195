"""A healthy brain that nobody has: the template, moved, bent and folded anew by random smooth fields.

Every array here has the axes L, P, S (voxels run towards the patient's left, back and top) and 1 mm voxels, as the
BraTS files have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emcad_lib.data.fields import COARSE, Fields, upsample
from emcad_lib.data.template import SURFACE_MM, hindbrain, template

GRID = (240, 240, 155)  # the voxels of every BraTS image, 1 mm each
BRAIN_CENTRE = (119.0, 127.0, 70.0)  # the voxel of the grid on which BraTS brains are centred
NEARLY_OUTSIDE = 0.1  # level of the template's "inside", some 2.5 mm outside the surface
HALF = 2  # voxels between the points at which folds and wrinkles are worked out

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Anatomy:
    """One brain in its own box of the grid, whose sides are a multiple of COARSE, plus 1.

    Attributes:
        box: where it lies in the 240 x 240 x 155 grid.
        coordinates: float32 (3, i, j, k), the template voxel that every COARSE-th voxel shows, before any push.
        mni: float32 (3, i, j, k), the MNI coordinates in mm of the same points, after the push.
        brain: bool (I, J, K), what the skull stripping has left.
        inside: float32 (I, J, K), 1 deep in the brain, 0.5 at its surface, less in what lies on it.
        tissue: float32 (3, I, J, K), the shares of CSF, grey and white matter; they sum to 1, outside the brain as CSF.
        ventricles: float32 (I, J, K), 1 in the ventricles, falling off over some millimetres.
        fields: the random fields of what isn't anatomy.
    """

    box: Box
    coordinates: Tensor
    mni: Tensor
    brain: Tensor
    inside: Tensor
    tissue: Tensor
    ventricles: Tensor
    fields: Fields


def _place(recipe: Mapping[str, Any]) -> tuple[Box, Tensor]:
    """Which template voxel does each COARSE-th voxel show? And in which box of the grid does the brain lie?

    Returns:
        The box, and coordinates (3, i, j, k) of the points in it.
    """
    atlas = template()
    scale = (atlas.volume / recipe["brain_cm3"]) ** (1 / 3) * np.exp(recipe["stretch"])
    matrix = rotation(recipe["rotation"]) @ np.diag(scale)
    fields = Fields(recipe["shape_seed"], GRID)
    steps = [
        torch.arange(0, length, COARSE, dtype=torch.float32) - float(centre)
        for length, centre in zip(GRID, np.array(BRAIN_CENTRE) + recipe["shift_mm"], strict=True)
    ]
    rows = []
    for axis, row in enumerate(matrix.tolist()):
        straight = (row[0] * steps[0])[:, None, None] + (row[1] * steps[1])[:, None] + row[2] * steps[2]
        bend = recipe["bend_mm"] * fields.smooth(f"bend {axis}", 40, step=COARSE)
        rows.append(straight + float(atlas.centre[axis]) + bend)
    near = look_up(atlas.maps[:1], rows)[0] > NEARLY_OUTSIDE  # the points in the brain, and up to some mm round it
    parts, within = [], []
    for axis in range(3):
        found = torch.nonzero(near.transpose(0, axis).flatten(1).any(1))
        low, high = max(int(found.min()) - 1, 0), min(int(found.max()) + 1, near.shape[axis] - 1)
        parts.append(slice(COARSE * low, COARSE * high + 1))
        within.append(slice(low, high + 1))
    return (parts[0], parts[1], parts[2]), torch.stack(rows)[(slice(None), *within)]


def build_anatomy(recipe: Mapping[str, Any], seed: int, push: Callable[[Tensor], Tensor] | None = None) -> Anatomy:
    """Build the brain that ``recipe`` describes.

    Args:
        recipe: the "anatomy" part of a patient's recipe.
        seed: of the random fields of what isn't anatomy: tumour, harmless spots and images.
        push: from template coordinates (3, i, j, k) to a displacement in mm of the same shape, by which a tumour pushes
            tissue aside. The brain's outline stays: the skull doesn't give way.
    """
    atlas = template()
    box, coordinates = _place(recipe)  # (3, i, j, k)
    fields = Fields(recipe["shape_seed"], GRID, box)
    displaced = coordinates
    if push is not None:
        displaced = coordinates - push(coordinates) * look_up(atlas.depth, list(coordinates / 3))

    finer = []  # three of (2i, 2j, 2k)
    for axis in range(3):
        wrinkle = fields.smooth(f"wrinkle {axis}", 11, step=HALF).mul_(recipe["wrinkle_mm"])
        finer.append(wrinkle.add_(upsample(displaced[axis], wrinkle.shape)))
    inside, grey, white, ventricles = look_up(atlas.maps, [upsample(row, fields.shape) for row in finer])
    # What the skull stripping takes for brain reaches a little beyond the surface in some places and falls short of it
    # in others. A blurred step is a cumulative normal distribution: level 0.31 lies half of SURFACE_MM outside.
    beyond = fields.smooth("strip error", 18, step=COARSE).mul_(recipe["strip_error_mm"]).add_(recipe["strip_mm"])
    level = torch.special.ndtr(-beyond.clamp_(-2, 3.5) / SURFACE_MM)
    brain = inside > upsample(level, fields.shape)
    origin, turned = torch.tensor(atlas.origin, dtype=torch.float32), torch.tensor([-1.0, -1.0, 1.0])
    mni = origin.view(3, 1, 1, 1) + displaced * turned.view(3, 1, 1, 1)
    chance = upsample(_fold_chance(recipe, fields, finer, mni), fields.shape)
    tissue = _fold(recipe, chance, grey, white, ventricles)
    return Anatomy(box, coordinates, mni, brain, inside, tissue, ventricles, Fields(seed, GRID, box))


def _fold_chance(recipe: Mapping[str, Any], fields: Fields, coordinates: Sequence[Tensor], mni: Tensor) -> Tensor:
    """A field of even chances, 0..1, at every second voxel: low in furrows, high in the white core of each fold.

    The furrows of the cerebrum run from the surface inwards, so the field is stretched along the way from the brain's
    middle. The leaves of the cerebellum are fine and lie across.
    """
    place = torch.stack(list(coordinates)) - torch.tensor(template().centre, dtype=torch.float32).view(3, 1, 1, 1)
    along = (place.norm(dim=0) / 60).clamp_(min=0.05).pow_(-recipe["fold_reach"])
    folds = fields.smooth("folds", recipe["fold_mm"], step=HALF) + 0.5 * fields.smooth("small folds", 4, step=HALF)
    leaves = fields.smooth("leaves", (18, 3.5, 3.5), step=HALF)
    middle = torch.tensor([(length - 1) / 2 for length in folds.shape]).view(3, 1, 1, 1)
    # Both are looked up where the tissue came from, so that they are pushed aside with it.
    folds = look_up(folds[None], list(middle + place * along / HALF))[0].mul_(0.9)
    folds.lerp_(look_up(leaves[None], list(middle + place / HALF))[0], upsample(hindbrain(mni), folds.shape))
    return torch.special.ndtr(folds)


def _fold(recipe: Mapping[str, Any], chance: Tensor, grey: Tensor, white: Tensor, ventricles: Tensor) -> Tensor:
    """Shares of CSF, grey and white matter (3, I, J, K), drawn from the template's probabilities.

    Where the template says 20 % CSF, 50 % grey, 30 % white, a voxel is CSF if its chance is below 0.2, white if it's
    above 0.7, and grey between. Chances vary smoothly, so grey matter lies between CSF and white matter, as a cortex.
    """
    sharp = recipe["sharpness"]
    chance = chance.mul_(1 - 1 / sharp).add_(0.5 / sharp)  # now 0 and 100 % are certain in spite of soft borders
    csf = (1 - grey - white).clamp_(0, 1)
    odds = float(np.exp(recipe["atrophy"]))
    csf = csf.mul(odds).div_(csf.mul_(odds - 1).add_(1))
    white = white.mul_(1 - csf).div_((grey + white).clamp_(min=1e-3))
    csf = csf.sub_(chance).mul_(sharp).add_(0.5).clamp_(0, 1)
    white = white.add_(chance).sub_(1).mul_(sharp).add_(0.5).clamp_(0, 1)
    csf = torch.maximum(csf, ((ventricles - 0.5 + recipe["ventricles"]) * 8).clamp_(0, 1))
    white = torch.minimum(white, 1 - csf)
    return torch.stack([csf, 1 - csf - white, white])


def look_up(maps: Tensor, coordinates: Sequence[Tensor]) -> Tensor:
    """The ``maps`` (C, A, B, C) at voxel ``coordinates``, three times (I, J, K): linear between voxels, 0 outside."""
    grid = torch.empty(1, *coordinates[0].shape, 3)
    for axis, size in enumerate(maps.shape[1:]):
        # PyTorch wants the last axis first, and -1..1 from the first voxel to the last.
        torch.mul(coordinates[axis], 2 / (size - 1), out=grid[0, ..., 2 - axis]).sub_(1)
    return F.grid_sample(maps[None], grid, align_corners=True)[0]


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Rotations about the three axes, in degrees, as one matrix."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles)):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread, so that sums round the same way however many patients are made at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
