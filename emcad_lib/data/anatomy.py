"""A healthy brain that nobody has: the MNI template, moved, bent and sharpened by random smooth fields.

The tissue maps are the ICBM 2009a nonlinear symmetric templates of the McConnell Brain Imaging Centre, Montreal Neurological
Institute (Fonov et al. 2011), as the package nilearn carries them. Every array here has the axes L, P, S (voxels run
towards the patient's left, back and top) and 1 mm voxels, as the BraTS files have.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable, Iterator, Mapping
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

from emcad_lib.files import CourseError

GRID = (240, 240, 155)  # the voxels of every BraTS image, 1 mm each
BRAIN_CENTRE = (119.0, 127.0, 70.0)  # the voxel of the grid on which BraTS brains are centred
B_SPLINE_POWER = (151 / 315) ** 3  # mean of the summed squared cubic B-spline weights over three axes: a field's variance


class Fields:
    """The random fields of one patient, each found by its name.

    A field depends on the patient's seed and its own name only, never on which fields were asked for before it. So the
    same brain can be made with and without its tumour, voxel by voxel.
    """

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        self.seed = seed
        self.shape = shape

    def random(self, name: str) -> np.random.Generator:
        """The random numbers that belong to ``name``."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(name.encode()),)))

    def smooth(self, name: str, size: float) -> Tensor:
        """A smooth field of mean 0 and variance 1 over the patient's box, with bumps of about ``size`` mm.

        Random values on a grid of that spacing, joined by cubic B-splines: one small matrix product per axis, which costs
        no more than trilinear interpolation and has no facets.
        """
        bases = [_b_spline_basis(length, size) for length in self.shape]
        values = self.random(name).standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
        field = torch.from_numpy(values)
        field = torch.einsum("ia,abc->ibc", bases[0], field)
        field = torch.einsum("jb,ibc->ijc", bases[1], field)
        return (field @ bases[2].T) / B_SPLINE_POWER**0.5

    def noise(self, name: str) -> Tensor:
        """White noise of mean 0 and variance 1 over the patient's box."""
        return torch.from_numpy(self.random(name).standard_normal(self.shape, dtype=np.float32))


@lru_cache(maxsize=64)
def _b_spline_basis(length: int, spacing: float) -> Tensor:
    """The weights (length, controls) of cubic B-splines with knots every ``spacing`` voxels."""
    controls = int(np.ceil((length - 1) / spacing)) + 4
    distance = np.abs(np.arange(length)[:, None] / spacing - (np.arange(controls)[None] - 1))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return torch.from_numpy(np.where(distance < 1, inner, outer).astype(np.float32))


@dataclass(frozen=True)
class Template:
    """The template's maps, cropped to the brain.

    Attributes:
        maps: float32 (4, A, B, C): depth (1 inside the brain, 0 outside, soft edge), grey matter, white matter, ventricles
            (1 in them, falling off over some millimetres).
        centre: the voxel in the middle of the brain.
        origin: MNI coordinates in mm of voxel (0, 0, 0); x falls and y falls along the axes, z rises.
        volume: of the brain in cm3.
    """

    maps: Tensor
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
    # nilearn itself isn't imported: that alone would take longer than making a brain.
    package = importlib.util.find_spec("nilearn")
    folder = Path(next(iter(package.submodule_search_locations or []))) / "datasets/data" if package else Path()
    images = {}
    for name in ("t1", "gm", "wm"):
        file = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        if not file.is_file():
            raise CourseError(f"{file}: the brain template is missing. Install it: pip install 'nilearn>=0.10.4'.")
        images[name] = nib.load(file)
    shift = images["t1"].affine[:3, 3]
    inside, grey, white = (np.asanyarray(image.dataobj)[::-1, ::-1].astype(np.float32) for image in images.values())
    size = inside.shape
    inside = (inside > 0).astype(np.float32)
    box = tuple(
        slice(max(part.start - 4, 0), part.stop + 4) for part in ndimage.find_objects(inside.astype(np.uint8))[0]
    )
    brain, grey, white = inside[box], grey[box] / 255, white[box] / 255
    # The maps average 152 people, so borders are blurred. Squaring the odds sharpens them without moving them.
    csf = np.clip(brain - grey - white, 0, 1)
    total = np.maximum(csf**2 + grey**2 + white**2, 1e-6)
    grey, white = grey**2 / total * brain, white**2 / total * brain
    start = np.array([part.start for part in box])
    origin = np.array([shift[0] + size[0] - 1 - start[0], shift[1] + size[1] - 1 - start[1], shift[2] + start[2]])
    deep = ndimage.distance_transform_edt(brain) > 18
    ventricles = ndimage.gaussian_filter((brain - grey - white) * deep, 2.0)
    maps = np.stack([ndimage.gaussian_filter(brain, 1.0), grey, white, ventricles])
    middle = np.array([(first.min() + first.max()) / 2 for first in np.nonzero(brain)])
    return Template(torch.from_numpy(maps), middle, origin, float(brain.sum()) / 1000)


@dataclass(frozen=True)
class Anatomy:
    """One brain in its own box of the grid.

    Attributes:
        box: where it lies in the 240 x 240 x 155 grid.
        coordinates: float32 (3, I, J, K), the template voxel that each voxel shows.
        brain: bool (I, J, K).
        tissue: float32 (3, I, J, K), the shares of CSF, grey and white matter; they sum to 1, outside the
            brain as CSF.
        ventricles: float32 (I, J, K), 1 in the ventricles, falling off over some millimetres.
    """

    box: tuple[slice, slice, slice]
    coordinates: Tensor
    brain: Tensor
    tissue: Tensor
    ventricles: Tensor


def box_and_matrix(recipe: Mapping[str, Any]) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """The box of the grid that holds the brain, and the 3 x 3 matrix from its millimetres to the template's."""
    atlas = template()
    scale = (atlas.volume / recipe["brain_cm3"]) ** (1 / 3) * np.exp(recipe["stretch"])
    matrix = rotation(recipe["rotation"]) @ np.diag(scale)
    half = np.abs(np.linalg.inv(matrix)) @ (np.array(atlas.maps.shape[1:]) / 2) + 5
    centre = np.array(BRAIN_CENTRE) + recipe["shift_mm"]
    low = np.maximum(np.floor(centre - half), 0).astype(int)
    high = np.minimum(np.ceil(centre + half), GRID).astype(int)
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), matrix


def build_anatomy(
    recipe: Mapping[str, Any], seed: int, push: Callable[[Tensor], Tensor] | None = None
) -> tuple[Anatomy, Fields]:
    """Build the brain that ``recipe`` describes; also return the random fields over its box.

    Args:
        recipe: the "anatomy" part of a patient's recipe.
        seed: of the patient's random fields.
        push: from template coordinates (3, I, J, K) to a displacement in mm of the same shape, by which a tumour pushes
            tissue aside. The brain's outline stays: the skull doesn't give way.
    """
    atlas = template()
    box, matrix = box_and_matrix(recipe)
    shape = tuple(part.stop - part.start for part in box)
    fields = Fields(seed, (shape[0], shape[1], shape[2]))
    steps = [
        torch.arange(part.start, part.stop, dtype=torch.float32) - float(centre)
        for part, centre in zip(box, np.array(BRAIN_CENTRE) + recipe["shift_mm"], strict=True)
    ]
    coordinates = torch.empty(3, *shape)
    for axis, row in enumerate(matrix.tolist()):
        straight = (row[0] * steps[0])[:, None, None] + (row[1] * steps[1])[:, None] + row[2] * steps[2]
        wide = recipe["bend_mm"] * fields.smooth(f"bend {axis}", 32)
        fine = recipe["wrinkle_mm"] * fields.smooth(f"wrinkle {axis}", 9)
        coordinates[axis] = straight.add_(wide).add_(fine).add_(float(atlas.centre[axis]))

    depth = _look_up(atlas.maps[:1], coordinates)[0]
    brain = depth > 0.5 + recipe["strip_error"] * fields.smooth("strip error", 12)
    displaced = coordinates if push is None else coordinates - push(coordinates)
    grey, white, ventricles = _look_up(atlas.maps[1:], displaced)

    # Where the template can't tell the tissues apart, this brain has folds of its own.
    doubt = 4 * grey * white * recipe["folds"] * fields.smooth("folds grey white", 5)
    grey, white = (grey + doubt).clamp_(0, 1), (white - doubt).clamp_(0, 1)
    csf = (1 - grey - white).clamp_(0, 1)
    csf = csf + 4 * csf * (1 - csf) * (recipe["atrophy"] + recipe["folds"] * fields.smooth("folds csf", 5))
    wide_ventricles = ((ventricles - 0.5 + recipe["ventricles"]) * 8).clamp_(0, 1)
    csf = torch.maximum(csf.clamp_(0, 1), wide_ventricles)
    scale = (1 - csf) / (grey + white).clamp_(min=1e-3)
    tissue = torch.stack([csf, grey * scale, white * scale])
    return Anatomy(box, coordinates, brain, tissue, ventricles), fields


def _look_up(maps: Tensor, coordinates: Tensor) -> Tensor:
    """The template's ``maps`` (C, A, B, C) at ``coordinates`` (3, I, J, K), linear between voxels, 0 outside."""
    size = torch.tensor(maps.shape[1:]).view(3, 1, 1, 1)
    grid = (coordinates * 2 / (size - 1) - 1).flip(0).movedim(0, -1)  # PyTorch wants the last axis first, in -1..1
    return F.grid_sample(maps[None], grid[None], align_corners=True)[0]


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
