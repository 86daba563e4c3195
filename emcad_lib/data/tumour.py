"""A glioma drawn into a brain: where it grows, what its parts are, and how it pushes the brain aside.

Everything happens in the template's coordinates, so that a recipe can say in MNI millimetres where a tumour sits. Volumes
and the shares of the parts are met exactly (up to what the brain can hold): each part takes the voxels that rank first in
a random field made for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from emcad_lib.data.anatomy import Anatomy, Fields, rotation, template

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4


def distance(coordinates: Tensor, foci: Sequence[Mapping[str, Any]]) -> Tensor:
    """Millimetres (I, J, K) from the nearest focus, each an ellipsoid, with smaller foci counted as farther away."""
    nearest = []
    for focus in foci:
        offset = _offset(coordinates, focus)
        matrix = np.diag(np.exp(-np.array(focus["stretch"]))) @ rotation(focus["rotation"]) / focus["size"]
        nearest.append(torch.tensordot(torch.tensor(matrix, dtype=torch.float32), offset, dims=1).norm(dim=0))
    return torch.stack(nearest).amin(0)


def push(coordinates: Tensor, foci: Sequence[Mapping[str, Any]], radius: float, strength: float) -> Tensor:
    """Displacement (3, I, J, K) in mm, away from each focus, that a tumour core of ``radius`` mm causes.

    Source: the radial mass effect of the prototype; its slope stays below 1, so tissue never folds over itself.
    """
    total = torch.zeros_like(coordinates)
    for focus in foci:
        offset = _offset(coordinates, focus)
        far = offset.norm(dim=0).clamp_(min=1)
        reach = radius * focus["size"]
        total += offset * (strength * reach * torch.exp(-((far / (1.8 * reach)) ** 2)) / far)
    return total


def _offset(coordinates: Tensor, focus: Mapping[str, Any]) -> Tensor:
    centre = torch.tensor(template().voxel(np.array(focus["centre_mni"])), dtype=torch.float32)
    return coordinates - centre.view(3, 1, 1, 1)


def equal_volume_radius(cm3: float) -> float:
    """The radius in mm of the sphere with that volume."""
    return (3000 * cm3 / (4 * np.pi)) ** (1 / 3)


def grow(recipe: Mapping[str, Any], anatomy: Anatomy, fields: Fields) -> Tensor:
    """The tumour's labels, uint8 (I, J, K): 0 none, 1 necrosis and non-enhancing, 2 oedema, 4 enhancing.

    Args:
        recipe: the "tumour" part of a patient's recipe.
    """
    labels = torch.zeros(anatomy.brain.shape, dtype=torch.uint8)
    if not recipe["foci"]:
        return labels
    radius = equal_volume_radius(recipe["whole_cm3"])
    millimetres = distance(anatomy.coordinates, recipe["foci"])
    near = box_around(millimetres < 2.6 * radius + 8)
    brain = anatomy.brain[near]
    csf, _, white = anatomy.tissue[(slice(None), *near)]
    away = millimetres[near] / radius
    lumps = recipe["lumps"] * (fields.smooth("lumps wide", 20)[near] + 0.6 * fields.smooth("lumps fine", 9)[near])

    # The oedema runs along white matter, hardly into grey matter, and not into CSF.
    resistance = recipe["infiltration"] * (0.6 - white) + 2 * csf
    spread = away + 1.3 * lumps + resistance + 0.08 * fields.smooth("oedema edge", 5)[near]
    whole = _first(spread, brain & (csf < 0.6), round(1000 * recipe["whole_cm3"]))
    whole = _one_piece_per_focus(whole)

    voxels = int(whole.sum())
    inward = away + lumps + 0.1 * fields.smooth("core edge", 6)[near]
    core = _first(inward, whole, round(voxels * recipe["core_share"]))

    depth = 1 - inward / inward[core].amax().clamp(min=1e-3) if core.any() else inward
    ring = recipe["ring"] * depth + (1 - recipe["ring"]) * 0.5 * fields.smooth("enhancement", 10)[near]
    ring = ring + 0.12 * fields.smooth("rim", 7)[near]
    enhancing = _first(ring, core, round(voxels * recipe["enhancing_share"]))

    part = labels[near]
    part[whole], part[core], part[enhancing] = OEDEMA, NECROSIS, ENHANCING
    return labels


def _first(field: Tensor, allowed: Tensor, count: int) -> Tensor:
    """The ``count`` allowed voxels with the smallest values of ``field``, as a mask."""
    values = field[allowed]
    count = min(count, len(values))
    if count == 0:
        return torch.zeros_like(allowed)
    return allowed & (field <= values.kthvalue(count).values)


def _one_piece_per_focus(mask: Tensor) -> Tensor:
    """Smooth away specks and threads, and keep the pieces that have at least a twentieth of the largest one's volume."""
    density = F.avg_pool3d(mask[None, None].float(), 3, 1, padding=1)[0, 0]
    smooth = mask & (density > 0.35)
    pieces, count = ndimage.label(smooth.numpy())
    if count < 2:
        return smooth
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return torch.from_numpy((sizes >= 0.05 * sizes.max())[pieces])


def box_around(mask: Tensor) -> tuple[slice, slice, slice]:
    """The smallest box that holds every voxel of a mask (I, J, K) that isn't empty."""
    low_high = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = torch.nonzero(mask.any(dim=others[1]).any(dim=others[0]))
        low_high.append(slice(int(found.min()), int(found.max()) + 1))
    return (low_high[0], low_high[1], low_high[2])
