"""A glioma drawn into a brain: where it grows, what its parts are, and how it pushes the brain aside.

Distances are measured in the template's coordinates, so that a recipe can say in MNI millimetres where a tumour sits.
Volumes and the shares of the parts are met closely: each part takes the voxels that come first in a field made for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from emcad_lib.data.anatomy import Anatomy, Box, rotation
from emcad_lib.data.fields import COARSE, upsample
from emcad_lib.data.template import template

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4
GREY_COST, CSF_COST = 3.0, 12.0  # how much slower than in white matter the oedema spreads


def push(coordinates: Tensor, foci: Sequence[Mapping[str, Any]], radius: float, strength: float) -> Tensor:
    """Displacement (3, i, j, k) in mm, away from each focus, that a tumour core of ``radius`` mm causes.

    Tissue outside the core never folds over itself. In the middle of the core it may, where the core hides it.
    """
    total = torch.zeros_like(coordinates)
    for focus in foci:
        offset = _offset(coordinates, focus)
        far = offset.norm(dim=0).clamp_(min=1)
        reach = radius * focus["size"]
        total += offset * (strength * reach * torch.exp(-((far / (1.8 * reach)) ** 2)) / far)
    return total


def equal_volume_radius(cm3: float) -> float:
    """The radius in mm of the sphere with that volume."""
    return (3000 * cm3 / (4 * np.pi)) ** (1 / 3)


@dataclass(frozen=True)
class Growth:
    """A tumour in a brain.

    Attributes:
        labels: uint8 (I, J, K): 0 none, 1 necrosis and non-enhancing, 2 oedema, 4 enhancing.
        box: the part of (I, J, K) that holds the tumour and a little round it.
        spread: float32, in that box: how far out in the oedema, 0 beside the core and 1 where the oedema ends.
        depth: float32, in that box: how far out in the core, 0 in its middle and 1 at its border.
    """

    labels: Tensor
    box: Box
    spread: Tensor
    depth: Tensor


def grow(recipe: Mapping[str, Any], anatomy: Anatomy) -> Growth | None:
    """Grow the tumour that ``recipe``, the "tumour" part of a patient's, describes; None where it names no focus."""
    if not recipe["foci"]:
        return None
    labels = torch.zeros(anatomy.brain.shape, dtype=torch.uint8)
    fields = anatomy.fields
    voxels = round(1000 * recipe["whole_cm3"])
    radius = equal_volume_radius(recipe["whole_cm3"] * recipe["core_share"])
    room = anatomy.brain & (anatomy.inside > 0.5) & (anatomy.tissue[0] < 0.6)

    # The core: ellipsoids with lumps.
    lumps = fields.smooth("lumps wide", 18) + 0.5 * fields.smooth("lumps fine", 8)
    away = _distance(anatomy.coordinates, recipe["foci"]) / radius
    core_field = upsample(away, fields.shape).add_(lumps, alpha=recipe["lumps"])
    core = first_voxels(core_field, room, round(voxels * recipe["core_share"]))

    # The oedema: where one gets to first from the core, which is along white matter.
    hours = upsample(_travel(core, anatomy, recipe["infiltration"]), fields.shape)
    hours = hours.add_(fields.smooth("oedema edge", 6), alpha=recipe["oedema_edge_mm"])
    oedema = first_voxels(hours, room & ~core, voxels - int(core.sum()))
    whole = _without_specks(core | oedema)
    core &= whole
    box = box_around(whole, margin=3)
    spread = (hours[box] / hours[oedema].amax().clamp(min=1)).clamp_(0, 1) if oedema.any() else hours[box] * 0

    # The enhancing part: a ring where depth decides, solid or in patches where chance does.
    depth = (core_field[box] / core_field[core].amax().clamp(min=1e-3)).clamp_(0, 1) if core.any() else spread * 0
    chance = fields.smooth("enhancement", 10, part=box) + 0.5 * fields.smooth("rim", 6, part=box)
    order = (1 - recipe["ring"]) * 0.5 * chance - recipe["ring"] * depth
    enhancing = first_voxels(order, core[box], round(voxels * recipe["enhancing_share"]))

    labels[whole], labels[core] = OEDEMA, NECROSIS
    labels[box][enhancing] = ENHANCING
    return Growth(labels, box, spread, depth)


def _distance(coordinates: Tensor, foci: Sequence[Mapping[str, Any]]) -> Tensor:
    """Millimetres (i, j, k) from the nearest focus; each is an ellipsoid, and smaller foci count as farther away."""
    nearest = []
    for focus in foci:
        matrix = np.diag(np.exp(-np.array(focus["stretch"]))) @ rotation(focus["rotation"]) / focus["size"]
        offset = torch.tensordot(torch.tensor(matrix, dtype=torch.float32), _offset(coordinates, focus), dims=1)
        nearest.append(offset.norm(dim=0))
    return torch.stack(nearest).amin(0)


def _offset(coordinates: Tensor, focus: Mapping[str, Any]) -> Tensor:
    centre = torch.tensor(template().voxel(np.array(focus["centre_mni"])), dtype=torch.float32)
    return coordinates - centre.view(3, 1, 1, 1)


def _travel(start: Tensor, anatomy: Anatomy, infiltration: float) -> Tensor:
    """How far (i, j, k) each COARSE-th voxel is from the mask ``start`` (I, J, K), in millimetres of white matter.

    The shortest path over steps to all 26 neighbours, found by relaxing until nothing changes any more. A step costs
    its length times the mean slowness of its ends.
    """
    shrunk = F.avg_pool3d(anatomy.tissue, 2 * COARSE - 1, COARSE, COARSE - 1, count_include_pad=False)
    whim = anatomy.fields.smooth("oedema speed", 25, step=COARSE).mul_(0.5).exp_()
    slow = 1 + infiltration * ((GREY_COST - 1) * shrunk[1] + (CSF_COST - 1) * shrunk[0])
    slow = F.pad((slow * whim)[None, None], [1] * 6, value=1e3)[0, 0]
    covered = F.max_pool3d(start[None, None].float(), COARSE + 1, COARSE, COARSE // 2)[0, 0] > 0
    inner = tuple(slice(1, -1) for _ in range(3))
    cost = torch.full_like(slow, 1e6)
    cost[inner] = torch.where(covered, torch.zeros(()), torch.full((), 1e6))
    neighbours = [
        (tuple(slice(1 + step, length - 1 + step) for step, length in zip(steps, slow.shape, strict=True)), steps)
        for steps in product((-1, 0, 1), repeat=3)
        if any(steps)
    ]
    prices = [(slow[inner] + slow[place]) * (COARSE / 2 * math.hypot(*steps)) for place, steps in neighbours]
    while True:
        before = cost[inner].clone()
        for (place, _), price in zip(neighbours, prices, strict=True):
            torch.minimum(cost[inner], cost[place] + price, out=cost[inner])
        if torch.equal(before, cost[inner]):
            return before


def first_voxels(field: Tensor, allowed: Tensor, count: int) -> Tensor:
    """The ``count`` allowed voxels with the smallest values of ``field``, as a mask."""
    values = field[allowed]
    count = min(count, len(values))
    if count <= 0:
        return torch.zeros_like(allowed)
    return allowed & (field <= values.kthvalue(count).values)


def _without_specks(mask: Tensor) -> Tensor:
    """Smooth away threads, and keep the pieces that have at least a twentieth of the largest one's volume."""
    near = box_around(mask)
    density = F.avg_pool3d(mask[near][None, None].float(), 3, 1, padding=1)[0, 0]
    smooth = mask[near] & (density > 0.4)
    pieces, _ = ndimage.label(smooth.numpy())
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = torch.zeros_like(mask)
    kept[near] = torch.from_numpy((sizes >= max(0.05 * sizes.max(), 1))[pieces])
    return kept


def box_around(mask: Tensor, margin: int = 0) -> Box:
    """The smallest box that holds every voxel of a mask (I, J, K) that isn't empty, and ``margin`` voxels round it."""
    flat = (mask.any(2).any(1), mask.any(2).any(0), mask.any(1).any(0))
    found = [torch.nonzero(line) for line in flat]
    low_high = [slice(max(int(places.min()) - margin, 0), int(places.max()) + 1 + margin) for places in found]
    return (low_high[0], low_high[1], low_high[2])
