"""The three ways to cut a head into slices: axial, coronal and sagittal.

A prepared patient is stored in axial slices (S, ..., H, W), from the lowest to the highest, rows from front to back.
The voxels are a millimetre in all three directions, so the same block can be cut in another direction just as well.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

PLANES = ("axial", "coronal", "sagittal")

_Scalar = TypeVar("_Scalar", bound=np.generic)


def recut(axial: NDArray[_Scalar], plane: str) -> NDArray[_Scalar]:
    """Axial slices (S, ..., H, W) in another plane, as a view of the same memory.

    Returns:
        coronal: (H, ..., S, W), from front to back; sagittal: (W, ..., S, H), from one side to the other, the face
        at the left edge. In both the top of the head is the top row.
    """
    if plane == "axial":
        return axial
    if plane == "coronal":
        return np.swapaxes(axial, 0, -2)[..., ::-1, :]
    if plane == "sagittal":
        return np.moveaxis(np.moveaxis(axial, -1, 0), 1, -2)[..., ::-1, :]
    raise ValueError(f"There is no plane {plane!r}. Choose from: {', '.join(PLANES)}.")


def as_axial(slices: NDArray[_Scalar], plane: str) -> NDArray[_Scalar]:
    """The way back from :func:`recut`: (S, ..., H, W), as a view of the same memory."""
    if plane == "axial":
        return slices
    if plane == "coronal":
        return np.swapaxes(slices[..., ::-1, :], 0, -2)
    if plane == "sagittal":
        return np.moveaxis(np.moveaxis(slices[..., ::-1, :], -2, 0), 1, -1)
    raise ValueError(f"There is no plane {plane!r}. Choose from: {', '.join(PLANES)}.")


def pixel_mm(spacing: tuple[float, ...], plane: str) -> tuple[float, float]:
    """Millimetres per pixel of a slice, down and across, for voxels of ``spacing`` (I, J, K): left, back and up."""
    left, back, up = spacing
    return {"axial": (back, left), "coronal": (up, left), "sagittal": (up, back)}[plane]
