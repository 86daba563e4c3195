"""What a finished network can still gain on a patient unlike those of its training, without labels."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from emcad_lib.files import CourseError

# What ``emcad_lib.segment`` does by default: how much each step helps on phantoms and on real patients is measured in
# notebooks/12. Arguments of ``segment_scan``.
REFINED: dict[str, Any] = {"every": 3, "flip": True, "adapt": 0.5, "crumbs": 0.1}


def adapted(model: nn.Module, batches: Iterable[Tensor], share: float) -> nn.Module:
    """A copy of ``model`` whose batch normalisation follows the images at hand.

    In training, batch normalisation remembers the mean and variance of each channel, and in use it subtracts and
    divides by them. On another scanner's images the channels have others, and everything behind them is shifted. The
    copy measures them on ``batches`` and moves towards them. Its weights stay as they are, and so does ``model``.

    Args:
        model: any network; without batch normalisation the copy is no other.
        batches: images as ``model`` takes them, (B, C, H, W). Best each a sample of the whole patient.
        share: 0 keeps what the training remembers, 1 takes the images' own.

    Raises:
        CourseError: the share isn't between 0 and 1.

    Source: Nado et al. 2020 (arXiv 2006.10963); mixing both, Schneider et al. 2020 (arXiv 2006.16971).
    """
    _check("adapt", share)
    model = copy.deepcopy(model).eval()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats]
    before = [{name: copy.deepcopy(buffer) for name, buffer in layer.named_buffers()} for layer in layers]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for layer, trained, momentum in zip(layers, before, momenta, strict=True):
        layer.momentum = momentum
        for name, buffer in layer.named_buffers():
            if buffer.is_floating_point():  # the mean and the variance, and not the count of batches
                buffer.lerp_(trained[name], 1 - share)
    return model.eval()


def without_crumbs(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """``mask`` (S, H, W) without the pieces that have less than ``share`` of the largest piece's volume.

    Pieces hang together across slices, face to face. A tumour is one lump or a few; what a network takes for tumour
    elsewhere is mostly small.

    Raises:
        CourseError: the share isn't between 0 and 1.
    """
    _check("crumbs", share)
    if share == 0:
        return mask
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (sizes >= share * sizes.max())[pieces] & mask


def _check(setting: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise CourseError(f"{setting} is a share: give it a number between 0 and 1, not {share:g}.")
