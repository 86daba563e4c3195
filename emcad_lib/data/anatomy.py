"""A healthy brain that nobody has: the MNI template, moved, bent and sharpened by random smooth fields.

The tissue maps are the ICBM 2009a nonlinear symmetric templates of the McConnell Brain Imaging Centre, Montreal
Neurological Institute (Fonov et al. 2011), as the package nilearn carries them. Every array here has the axes L, P, S
(voxels run towards the patient's left, back and top) and 1 mm voxels, as the BraTS files have.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from emcad_lib.data.fields import COARSE, Fields, blur, upsample
from emcad_lib.files import CourseError

GRID = (240, 240, 155)  # the voxels of every BraTS image, 1 mm each
BRAIN_CENTRE = (119.0, 127.0, 70.0)  # the voxel of the grid on which BraTS brains are centred
HELD_MM = 9.0  # the skull holds the brain this far below its surface...
FREE_MM = 24.0  # ...and has no hold any more this far below it

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Template:
    """The template's maps, cropped to the brain.

    Attributes:
        maps: float32 (4, A, B, C): brain (1 inside, 0 outside, soft edge), grey matter, white matter, ventricles (1 in
            them, falling off over some millimetres).
        depth: float32 (1, a, b, c), at every third voxel: 0 down to HELD_MM below the surface, 1 from FREE_MM.
        centre: the voxel in the middle of the brain.
        origin: MNI coordinates in mm of voxel (0, 0, 0); x and y fall along the axes, z rises.
        volume: of the brain in cm3.
    """

    maps: Tensor
    depth: Tensor
    centre: np.ndarray
    origin: np.ndarray
    volume: float

    def voxel(self, mni: np.ndarray) -> np.ndarray:
        """The voxel (not rounded) at MNI coordinates in mm."""
        return (np.asarray(mni) - self.origin) * (-1, -1, 1)

    def mni(self, voxel: np.ndarray) -> np.ndarray:
        """The MNI coordinates in mm of a voxel."""
        return self.origin + np.asarray(voxel) * (-1, -1, 1)


@lru_cache(maxsize=1)
def template() -> Template:
    """Read the template from nilearn's package data.

    Raises:
        CourseError: when nilearn isn't installed, or carries the maps no longer.
    """
    head, grey, white, affine = _read_maps()
    found = ndimage.find_objects((head > 0).astype(np.uint8))[0]
    box = tuple(slice(max(part.start - 4, 0), part.stop + 4) for part in found)
    # nilearn's arrays run to the patient's right, front and top: turning two axes round makes them L, P, S.
    last = np.array(head.shape) - 1
    start = np.array([part.start for part in box])
    origin = affine[:3, 3] + np.array([last[0] - start[0], last[1] - start[1], start[2]])
    brain = (head[box] > 0).astype(np.float32)
    grey, white = grey[box].astype(np.float32) / 255, white[box].astype(np.float32) / 255

    # The maps average 152 people, so borders are blurred. Squaring the shares sharpens them without moving them.
    csf = np.clip(brain - grey - white, 0, 1)
    total = np.maximum(csf**2 + grey**2 + white**2, 1e-6) / np.maximum(brain, 1e-6)
    grey, white = grey**2 / total, white**2 / total
    depth = ndimage.distance_transform_edt(np.pad(brain[::3, ::3, ::3], 1))[1:-1, 1:-1, 1:-1] * 3.0
    deep = np.kron(depth > 18, np.ones((3, 3, 3), bool))[tuple(slice(n) for n in brain.shape)]
    ventricles = (brain - grey - white) * deep
    maps = torch.from_numpy(np.stack([brain, grey, white, ventricles]))
    maps[0], maps[3] = blur(maps[0], (1.0, 1.0, 1.0)), blur(maps[3], (2.0, 2.0, 2.0))
    centre = np.array([(part.stop - part.start - 1) / 2 + min(part.start, 4) for part in found])
    shallow = torch.from_numpy(np.clip((depth - HELD_MM) / (FREE_MM - HELD_MM), 0, 1).astype(np.float32))
    return Template(maps, shallow[None], centre, origin, float(brain.sum()) / 1000)


def _read_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The head, grey and white matter as stored (uint8, axes turned to L, P, S), and the stored affine."""
    # nilearn itself isn't imported: that alone would take longer than making a brain.
    package = importlib.util.find_spec("nilearn")
    places = package.submodule_search_locations if package else None
    if not places:
        raise CourseError("nilearn, which carries the brain template, isn't installed: pip install 'nilearn>=0.10.4'.")
    images = []
    for name in ("t1", "gm", "wm"):
        file = Path(places[0]) / f"datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        if not file.is_file():
            raise CourseError(f"{file}: missing. Install nilearn again: pip install 'nilearn>=0.10.4'.")
        images.append(nib.nifti1.Nifti1Image.from_filename(file))
    head, grey, white = (np.asanyarray(image.dataobj)[::-1, ::-1].copy(order="C") for image in images)
    return head, grey, white, images[0].affine


@dataclass(frozen=True)
class Anatomy:
    """One brain in its own box of the grid, whose sides are a multiple of COARSE, plus 1.

    Attributes:
        box: where it lies in the 240 x 240 x 155 grid.
        coordinates: float32 (3, i, j, k), the template voxel that every COARSE-th voxel shows, before any push.
        brain: bool (I, J, K).
        tissue: float32 (3, I, J, K), the shares of CSF, grey and white matter; they sum to 1, outside the brain as CSF.
        ventricles: float32 (I, J, K), 1 in the ventricles, falling off over some millimetres.
        fields: the random fields of this patient.
    """

    box: Box
    coordinates: Tensor
    brain: Tensor
    tissue: Tensor
    ventricles: Tensor
    fields: Fields


def box_and_matrix(recipe: Mapping[str, Any]) -> tuple[Box, np.ndarray]:
    """The box of the grid that holds the brain, and the 3 x 3 matrix from its millimetres to the template's."""
    atlas = template()
    scale = (atlas.volume / recipe["brain_cm3"]) ** (1 / 3) * np.exp(recipe["stretch"])
    matrix = rotation(recipe["rotation"]) @ np.diag(scale)
    half = np.abs(np.linalg.inv(matrix)) @ (np.array(atlas.maps.shape[1:]) / 2)
    centre = np.array(BRAIN_CENTRE) + recipe["shift_mm"]
    parts = []
    for middle, reach, length in zip(centre.tolist(), half.tolist(), GRID, strict=True):
        low, high = max(int(middle - reach), 0), min(int(middle + reach) + 1, length - 1)
        parts.append(slice(low, low + (high - low) // COARSE * COARSE + 1))
    return (parts[0], parts[1], parts[2]), matrix


def build_anatomy(recipe: Mapping[str, Any], seed: int, push: Callable[[Tensor], Tensor] | None = None) -> Anatomy:
    """Build the brain that ``recipe`` describes.

    Args:
        recipe: the "anatomy" part of a patient's recipe.
        seed: of the patient's random fields.
        push: from template coordinates (3, i, j, k) to a displacement in mm of the same shape, by which a tumour pushes
            tissue aside. The brain's outline stays: the skull doesn't give way.
    """
    atlas = template()
    box, matrix = box_and_matrix(recipe)
    fields = Fields(seed, tuple(part.stop - part.start for part in box))
    steps = [
        torch.arange(part.start, part.stop, COARSE, dtype=torch.float32) - float(centre)
        for part, centre in zip(box, np.array(BRAIN_CENTRE) + recipe["shift_mm"], strict=True)
    ]
    rows = []
    for axis, row in enumerate(matrix.tolist()):
        straight = (row[0] * steps[0])[:, None, None] + (row[1] * steps[1])[:, None] + row[2] * steps[2]
        bend = recipe["bend_mm"] * fields.smooth(f"bend {axis}", 32, step=COARSE)
        rows.append(straight + float(atlas.centre[axis]) + bend)
    coordinates = torch.stack(rows)  # (3, i, j, k)
    displaced = coordinates
    if push is not None:
        displaced = coordinates - push(coordinates) * _look_up(atlas.depth, list(coordinates / 3))

    full = []
    for axis in range(3):
        wrinkle = fields.smooth(f"wrinkle {axis}", 9).mul_(recipe["wrinkle_mm"])
        full.append(wrinkle.add_(upsample(displaced[axis], fields.shape)))
    inside, grey, white, ventricles = _look_up(atlas.maps, full)
    brain = inside > (0.5 + recipe["strip_error"] * fields.smooth("strip error", 12)).clamp_(0.2, 0.8)
    return Anatomy(box, coordinates, brain, _fold(recipe, fields, grey, white, ventricles), ventricles, fields)


def _fold(recipe: Mapping[str, Any], fields: Fields, grey: Tensor, white: Tensor, ventricles: Tensor) -> Tensor:
    """Shares of CSF, grey and white matter (3, I, J, K); where the template wavers, this brain has folds of its own."""
    doubt = fields.smooth("folds grey white", 5).mul_(4 * recipe["folds"]).mul_(grey).mul_(white)
    grey, white = (grey + doubt).clamp_(0, 1), (white - doubt).clamp_(0, 1)
    csf = (1 - grey - white).clamp_(0, 1)
    wider = fields.smooth("folds csf", 5).mul_(recipe["folds"]).add_(recipe["atrophy"])
    csf = csf.add_(wider.mul_(4).mul_(csf).mul_(1 - csf)).clamp_(0, 1)
    csf = torch.maximum(csf, ((ventricles - 0.5 + recipe["ventricles"]) * 8).clamp_(0, 1))
    scale = (1 - csf).div_((grey + white).clamp_(min=1e-3))
    grey, white = grey.mul_(scale), white.mul_(scale)
    return torch.stack([1 - grey - white, grey, white])


def _look_up(maps: Tensor, coordinates: Sequence[Tensor]) -> Tensor:
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
