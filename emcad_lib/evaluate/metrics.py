"""How good is a segmentation? Dice, in every definition that the course compares, and the Hausdorff distance.

A Dice score says how much two masks overlap. It's undefined where there is nothing to overlap, and papers fill that gap
in different ways without saying so. Over the slices of a head, more than half of which hold no tumour, the choice
decides what the mean can be at all.

Source: Menze et al. 2015 (Dice and HD95 of the BraTS regions). Built by hand in notebooks/11.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[Any] | Tensor

DEFINITIONS = {
    "slice_empty0": "mean over all slices; a correctly empty slice counts 0",
    "slice_empty1": "mean over all slices; a correctly empty slice counts 1",
    "slice_tumour": "mean over the slices that hold tumour; all others are left out",
    "slice_published": "mean over all slices as in the published code: correctly empty 0, false positive on empty 1",
    "patient": "mean over patients, each scored once in 3D, as BraTS does",
}

# What a slice without tumour scores, by definition: (when the prediction is empty too, when it isn't). NaN: left out.
_WITHOUT_TUMOUR = {
    "slice_empty0": (0.0, 0.0),
    "slice_empty1": (1.0, 0.0),
    "slice_tumour": (np.nan, np.nan),
    "slice_published": (0.0, 1.0),
}


def dice(prediction: Mask, target: Mask, both_empty: float = 1.0, false_positive: float = 0.0) -> float:
    """Dice score of two masks of one shape: ``2 |P and T| / (|P| + |T|)``, between 0 and 1.

    Args:
        prediction: True or 1 where tumour was found; any shape, array or tensor.
        target: True or 1 where tumour is.
        both_empty: the score where there is no tumour and none was found. BraTS says 1.
        false_positive: the score where there is no tumour and some was found. BraTS says 0.

    Raises:
        ValueError: shapes differ, or a mask holds NaN or anything else than 0 and 1.
    """
    prediction, target = _pair(prediction, target)
    return float(slice_dice(prediction[None], target[None], both_empty, false_positive)[0])


def slice_dice(
    prediction: Mask, target: Mask, both_empty: float = 1.0, false_positive: float = 0.0
) -> NDArray[np.float64]:
    """Dice score of each slice: (S, ...) and (S, ...) to (S,). What :func:`dice` says of its arguments holds here.

    Raises:
        ValueError: as in :func:`dice`.
    """
    prediction, target = _pair(prediction, target)
    return _score(_count(prediction, target), both_empty, false_positive)


def dice_by_definition(predictions: Sequence[Mask], targets: Sequence[Mask]) -> dict[str, float]:
    """One set of predictions, scored by each of :data:`DEFINITIONS`.

    What a slice counts, by what it holds and what was found:

    ================  ==============  ==========  ==============  ==========
    tumour, found     none, none      none, some  some, none      some, some
    ================  ==============  ==========  ==============  ==========
    slice_empty0      0               0           0               Dice
    slice_empty1      1               0           0               Dice
    slice_tumour      left out        left out    0               Dice
    slice_published   0               1           0               Dice
    ================  ==============  ==========  ==============  ==========

    The slices of all patients are pooled before the mean, so a patient with more slices weighs more. ``patient`` takes
    each patient's slices as one volume (no tumour, none found: 1; no tumour, some found: 0) and weighs all patients
    alike. Which slices are handed over matters as well: with slices above and below the brain, more of them are empty.

    Args:
        predictions: for each patient a mask (S, H, W); S, H and W may differ between patients.
        targets: the same for the truth.

    Returns:
        Definition to mean score. ``slice_tumour`` is NaN where no slice of any patient holds tumour.

    Raises:
        ValueError: no patient, or not as many targets; masks that don't fit each other; anything but 0 and 1.
    """
    if len(predictions) != len(targets) or not len(targets):
        raise ValueError(
            f"predictions and targets must be as many, and one at least, not {len(predictions)} and {len(targets)}."
        )
    counts = []
    for index, pair in enumerate(zip(predictions, targets, strict=True)):
        prediction, target = _pair(*pair)
        if target.ndim != 3 or not target.size:
            raise ValueError(f"Patient {index}: masks are (slices, height, width), not {target.shape}.")
        counts.append(_count(prediction, target))
    slices = np.concatenate(counts, axis=1)
    patients = np.stack([count.sum(axis=1) for count in counts], axis=1)
    means = {}
    for definition, (both_empty, false_positive) in _WITHOUT_TUMOUR.items():
        scores = _score(slices, both_empty, false_positive)
        counted = scores[~np.isnan(scores)]
        means[definition] = float(counted.mean()) if counted.size else float("nan")
    means["patient"] = float(_score(patients, both_empty=1.0, false_positive=0.0).mean())
    return means


def hd95(prediction: Mask, target: Mask, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """How far apart are the two surfaces, in millimetres, leaving the worst twentieth of their points aside?

    The 95% Hausdorff distance by MONAI: from each surface's voxels to the nearest voxel of the other surface, the 95th
    percentile of these distances, and of the two directions the larger. A surface voxel is a voxel of the mask with a
    face towards the outside; the edge of the image counts as outside.

    The empty rule: two empty masks agree, 0.0; with one empty there is no distance, NaN. BraTS instead scores the
    diagonal of the image there (373 mm), so leave NaN out of a mean only where you say how often it occurred.

    Args:
        prediction: mask of any number of axes, (I, J, K) for a volume.
        target: mask of the same shape.
        spacing: millimetres between voxels, one number per axis.

    Raises:
        ValueError: as in :func:`dice`; a spacing that doesn't fit the masks, or isn't positive.
    """
    prediction, target = _pair(prediction, target)
    spacing = _check_spacing(spacing, target.ndim)
    if not prediction.any() and not target.any():
        return 0.0
    if not prediction.any() or not target.any():
        return float("nan")
    from monai.metrics import compute_hausdorff_distance  # seconds to import: only for those who ask for it

    ours, theirs = (torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (prediction, target))
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it passes to itself.
        warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
        distance = compute_hausdorff_distance(ours, theirs, include_background=True, percentile=95, spacing=spacing)
    return float(distance)


def sensitivity(prediction: Mask, target: Mask) -> float:
    """Of the true tumour, the share that was found; NaN where there is no tumour.

    Raises:
        ValueError: as in :func:`dice`.
    """
    prediction, target = _pair(prediction, target)
    return _share(prediction & target, target)


def specificity(prediction: Mask, target: Mask) -> float:
    """Of all that is no tumour, the share that was left alone; NaN where everything is tumour.

    It counts the air round the head as well, as BraTS does, and so it's near 1 for whatever a network does: 1% of a
    BraTS volume is as much as a whole tumour.

    Raises:
        ValueError: as in :func:`dice`.
    """
    prediction, target = _pair(prediction, target)
    return _share(~prediction & ~target, ~target)


def volume_cm3(mask: Mask, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """Volume of a mask (I, J, K) in cubic centimetres, where ``spacing`` is millimetres between voxels along each axis.

    Raises:
        ValueError: as in :func:`hd95`.
    """
    mask = _mask(mask, "mask")
    return float(np.count_nonzero(mask) * np.prod(_check_spacing(spacing, mask.ndim)) / 1000)


def _count(prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of masks (S, ...) the pixels of each slice in both, in the prediction, and in the target: (3, S)."""
    axes = tuple(range(1, target.ndim))
    return np.stack([mask.sum(axis=axes, dtype=np.int64) for mask in (prediction & target, prediction, target)])


def _score(counts: NDArray[np.int64], both_empty: float, false_positive: float) -> NDArray[np.float64]:
    """Dice (S,) from counts (3, S), with the given scores where there is no tumour."""
    overlap, found, tumour = counts
    scores = 2 * overlap / np.maximum(found + tumour, 1)
    without = np.where(found == 0, both_empty, false_positive)
    return np.where(tumour == 0, without, scores)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")


def _pair(prediction: Mask, target: Mask) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    prediction, target = _mask(prediction, "prediction"), _mask(target, "target")
    if prediction.shape != target.shape:
        raise ValueError(f"prediction and target differ in shape: {prediction.shape} and {target.shape}.")
    return prediction, target


def _mask(mask: Mask, name: str) -> NDArray[np.bool_]:
    """``mask`` as an array of bool, refused if it is anything else than a mask."""
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu()
        mask = (mask.float() if mask.is_floating_point() else mask).numpy()  # NumPy has no bfloat16
    mask = np.asarray(mask)
    if mask.dtype == np.bool_:
        return mask
    if np.isnan(mask).any():
        raise ValueError(f"{name} must be a mask of 0 and 1, and holds NaN.")
    wrong = mask[(mask != 0) & (mask != 1)]
    if wrong.size:
        raise ValueError(f"{name} must be a mask of 0 and 1, and holds {wrong[0]:g}. Apply a threshold first.")
    return mask.astype(bool)


def _check_spacing(spacing: Sequence[float], axes: int) -> tuple[float, ...]:
    checked = tuple(float(step) for step in spacing)
    if len(checked) != axes or not all(0 < step < np.inf for step in checked):
        raise ValueError(f"spacing must be {axes} positive numbers, one for each axis of the masks, not {checked}.")
    return checked
