"""The brain that every phantom starts from: the MNI template, as maps of tissue, and what lies where in it.

The maps are the ICBM 2009a nonlinear symmetric templates of the McConnell Brain Imaging Centre, Montreal Neurological
Institute (Fonov et al. 2011), as the package nilearn carries them. Arrays have the axes L, P, S (voxels run towards the
patient's left, back and top) and 1 mm voxels, as the BraTS files have.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from emcad_lib.data.fields import blur
from emcad_lib.files import CourseError

HELD_MM = 9.0  # the skull holds the brain this far below its surface...
FREE_MM = 24.0  # ...and has no hold any more this far below it
MARGIN_MM = 8  # kept round the brain
SURFACE_MM = 2.0  # the surface is a Gaussian blur this wide, so that a level of it lies so many mm inside or outside


@dataclass(frozen=True)
class Template:
    """The template's maps, cropped to the brain and some millimetres round it.

    Attributes:
        maps: float32 (4, A, B, C): inside (1 deep in the brain, 0.5 at its surface, 0 some millimetres outside), grey
            matter, white matter, ventricles (1 in them, falling off over some millimetres).
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
    box = tuple(slice(max(part.start - MARGIN_MM, 0), part.stop + MARGIN_MM) for part in found)
    # nilearn's arrays run to the patient's right, front and top: turning two axes round makes them L, P, S.
    last = np.array(head.shape) - 1
    start = np.array([part.start for part in box])
    origin = affine[:3, 3] + np.array([last[0] - start[0], last[1] - start[1], start[2]])
    brain = (head[box] > 0).astype(np.float32)
    grey, white = grey[box].astype(np.float32) / 255, white[box].astype(np.float32) / 255

    depth = ndimage.distance_transform_edt(np.pad(brain[::3, ::3, ::3], 1))[1:-1, 1:-1, 1:-1] * 3.0
    deep = np.kron(depth > 18, np.ones((3, 3, 3), bool))[tuple(slice(n) for n in brain.shape)]
    ventricles = (brain - grey - white) * deep
    maps = torch.from_numpy(np.stack([brain, grey, white, ventricles]))
    maps[0], maps[3] = blur(maps[0], (SURFACE_MM,) * 3), blur(maps[3], (2.0, 2.0, 2.0))
    centre = np.array([(part.stop - part.start - 1) / 2 + min(part.start, MARGIN_MM) for part in found])
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


def hindbrain(mni: Tensor) -> Tensor:
    """How far MNI coordinates (3, ...) lie in cerebellum and brain stem: 1 in them, 0 in the cerebrum, soft between."""
    x, y, z = mni[0].abs(), mni[1], mni[2]
    cerebellum = torch.sigmoid((tentorium(mni) - z) / 2) * torch.sigmoid((-38 - y) / 2)
    stem = torch.sigmoid((17 - x) / 2) * torch.sigmoid((-6 - z) / 3) * torch.sigmoid((-8 - y) / 2)
    return torch.maximum(cerebellum, stem)


def tentorium(mni: Tensor) -> Tensor:
    """The height z in mm of the roof over the cerebellum, at MNI coordinates (3, ...)."""
    return -8 - 0.3 * mni[0].abs() - 0.25 * (-55 - mni[1]).clamp(min=0)
