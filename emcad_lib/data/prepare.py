"""From a scan to slices that a network can learn from: z-scores, cropped to the brain, a byte per voxel.

MRI has no unit: the same tissue is 300 in one scanner and 1500 in another. So each image is measured in its own
standard deviations from its own mean over the brain. Built step by step in notebooks/02.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emcad_lib.data.nifti import PatientError
from emcad_lib.data.scan import MODALITIES, Patient, Scan
from emcad_lib.files import CourseError

CLIP = 5.0  # z-scores end here: what is further out is an artefact or a vessel, and would only cost resolution
STEP = 2 * CLIP / 254  # between the z-scores of neighbouring bytes: 1 is -5, 255 is 5
MIDDLE = 128

# What the middle byte stands for. A z-score of 0 means "outside the brain" and nothing else: otherwise an augmentation
# would take voxels at the very mean, one in sixty, for background.
ALMOST_ZERO = 1e-4

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # first and past-the-last index along I, J and K


class FlatImage(CourseError):
    """An image that has one value all over the brain, and so no contrast to measure.

    Attributes:
        modality: which of MODALITIES.
    """

    def __init__(self, modality: str) -> None:
        super().__init__(modality)
        self.modality = modality

    def __str__(self) -> str:
        return f"The {self.modality} image has the same value everywhere in the brain. Fetch this patient's file again."


@contextmanager
def naming(patient: Patient) -> Iterator[None]:
    """Let an image without contrast be named by patient and file.

    Raises:
        PatientError: in place of a `FlatImage` that comes from the block.
    """
    try:
        yield
    except FlatImage as error:
        file, problem = patient.images[error.modality], str(error).partition(".")[0]
        raise PatientError(patient.name, file, problem, "Fetch the file again, or leave the patient out") from error


@dataclass(frozen=True)
class Prepared:
    """One patient's slices, from the lowest with brain to the highest, as radiologists look at them.

    Rows run from front to back, columns from the patient's right to the left.

    Attributes:
        images: uint8 (S, 4, H, W), see :func:`quantise`; channels in the order of MODALITIES.
        regions: uint8 (S, H, W) region bits (see ``labels.py``), or None without a segmentation.
        box: where the brain lies in the scan: S slices of K, H rows of J, W columns of I.
        mean, std: of each modality over its brain voxels, in the units of the file.
    """

    images: NDArray[np.uint8]
    regions: NDArray[np.uint8] | None
    box: Box
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def restore(self, slices: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
        """Put something made on the slices, of shape (S, H, W), back into a scan of ``shape`` (I, J, K), else 0."""
        whole = np.zeros(shape, dtype=slices.dtype)
        whole[_slices(self.box)] = slices.T  # (W, H, S) = (I, J, K)
        return whole


def normalise(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """z-scores of ``images`` (4, I, J, K), each modality over its own non-zero voxels; clipped to +-5, 0 outside.

    Its own, because they differ: an old FLAIR may cover only two thirds of the brain.

    Raises:
        FlatImage: an image has no two values in the brain.
    """
    return np.stack([_z_scores(image, modality)[0] for image, modality in zip(images, MODALITIES, strict=True)])


def _z_scores(image: NDArray[np.generic], modality: str) -> tuple[NDArray[np.float32], float, float]:
    """One modality's z-scores, and the mean and standard deviation that they were made with."""
    brain = image != 0
    values = image[brain].astype(np.float32)
    if values.size == 0 or values.min() == values.max():
        raise FlatImage(modality)
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    values = np.clip((values - np.float32(mean)) / np.float32(std), -CLIP, CLIP)
    z = np.zeros_like(image, dtype=np.float32)
    z[brain] = values
    return z, mean, std


def quantise(z: NDArray[np.floating], brain: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """z-scores of any shape as bytes: 0 outside the brain, and 1 to 255 for -5 to 5 inside.

    Args:
        z: the z-scores.
        brain: where the brain is, in the same shape; by default where z isn't 0.
    """
    codes = np.clip(np.rint(z * np.float32(1 / STEP)) + np.float32(MIDDLE), 1, 255).astype(np.uint8)
    codes *= z != 0 if brain is None else brain
    return codes


@overload
def dequantise(codes: Tensor) -> Tensor: ...
@overload
def dequantise(codes: NDArray[np.uint8]) -> NDArray[np.float32]: ...
def dequantise(codes: Tensor | NDArray[np.uint8]) -> Tensor | NDArray[np.float32]:
    """The float32 z-scores that bytes stand for, within STEP / 2 + ALMOST_ZERO of what they were made of.

    Arrays and tensors give the same numbers.
    """
    if isinstance(codes, Tensor):
        z = codes.float().sub_(MIDDLE).mul_(STEP).add_(ALMOST_ZERO)
        return z.masked_fill_(codes == 0, 0)
    return np.take(_Z_OF_CODE, codes)


_Z_OF_CODE: NDArray[np.float32] = dequantise(torch.arange(256, dtype=torch.uint8)).numpy()


def prepare_patient(scan: Scan) -> Prepared:
    """Crop a scan to the brain, and store its z-scores as bytes, slice by slice.

    The brain is where any modality isn't 0. Below its lowest and above its highest slice nothing is kept.

    Raises:
        FlatImage: an image has no two values in the brain.
    """
    box = brain_box(scan.images)
    inside = _slices(box)
    width, height, count = (end - start for start, end in box)
    images = np.empty((count, len(MODALITIES), height, width), dtype=np.uint8)
    scales = []
    for channel, modality in enumerate(MODALITIES):
        upright = np.ascontiguousarray(scan.images[channel][inside].T)  # (S, H, W), and in this order in memory
        z, *scale = _z_scores(upright, modality)
        images[:, channel] = quantise(z, upright != 0)
        scales.append(scale)
    regions = None if scan.regions is None else np.ascontiguousarray(scan.regions[inside].T)
    mean, std = zip(*scales, strict=True)
    return Prepared(images, regions, box, mean, std)


def brain_box(images: NDArray[np.generic]) -> Box:
    """The smallest box that holds every voxel of ``images`` (4, I, J, K) that isn't 0 in all modalities.

    Raises:
        CourseError: there is no such voxel.
    """
    brain = images[0] != 0
    for image in images[1:]:
        brain |= image != 0
    if not brain.any():
        raise CourseError("There is no brain in this scan: every voxel is 0 in all modalities. Fetch it again.")
    filled = (np.flatnonzero(brain.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    i, j, k = ((int(places[0]), int(places[-1]) + 1) for places in filled)
    return i, j, k


def _slices(box: Box) -> tuple[slice, slice, slice]:
    i, j, k = (slice(*ends) for ends in box)
    return i, j, k
