"""What the network is asked to make small: cross-entropy and Dice, on every sum of its four maps.

Logits and targets are (..., H, W). Several regions are several channels, each with a sigmoid of its own, because the
regions overlap: the whole tumour contains its core, and the core its enhancing part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.autograd.function import once_differentiable

CROSS_ENTROPY_SHARE = 0.3
DICE_SHARE = 0.7
SMOOTHING = 1.0


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """How far the predicted area is from covering the true one: 0 for a perfect prediction, towards 1 for a miss.

    ``1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)`` with probabilities ``p = sigmoid(logits)``, over the pixels of each
    slice and region; then the mean over slices and regions.

    Dice is counted for each slice by itself, not for the batch as one picture. So a slice weighs the same in a batch
    of 6 as in one of 25, and the loss of a large batch is the mean of the losses of its parts. The smoothing ``s`` of
    one pixel decides the slices without tumour: there the loss is ``1 - 1 / (sum(p) + 1)``, 0 for an empty prediction.

    Args:
        logits: (..., H, W).
        target: 0 or 1, of the same shape, or of one that repeats to it.

    Returns:
        a scalar.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * target).sum(dim=(-2, -1))  # (...)
    total = probabilities.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return (1 - (2 * overlap + SMOOTHING) / (total + SMOOTHING)).mean()


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """``0.3 x cross-entropy + 0.7 x Dice``. Cross-entropy judges every pixel, Dice the area as a whole.

    Tumour fills a few percent of the pixels: cross-entropy alone is small for a network that never finds any, and Dice
    alone gives hardly any slope while nothing overlaps yet. Shapes as in `dice_loss`.

    Source: Rahman et al. 2024 (arXiv 2405.06880).
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits))
    return CROSS_ENTROPY_SHARE * cross_entropy + DICE_SHARE * dice_loss(logits, target)


def mutation_loss(maps: Sequence[Tensor], target: Tensor) -> Tensor:
    """Deep supervision with every mixture of the maps: each non-empty subset is added up and judged as one prediction.

    Four maps have ``2**4 - 1 = 15`` non-empty subsets: {p4}, {p3}, {p4, p3}, ... {p4, p3, p2, p1}. The loss is the sum
    of the 15 segmentation losses, so at the start of training it is about 15 times what one map would give.

    Args:
        maps: logits [p4, p3, p2, p1], each (B, R, H, W). Those of 16 bits are judged in 32.
        target: (B, R, H, W), 0 or 1.

    Returns:
        a scalar, float32 or float64.

    Source: Rahman et al. 2024 (arXiv 2405.06880), section 3.3, where the subsets are called MUTATION.
    """
    stack = torch.stack(list(maps))  # (4, B, R, H, W)
    judged: Tensor = _SumOverSubsets.apply(stack.to(torch.promote_types(stack.dtype, torch.float32)), target)
    return judged


def boundary_loss(logits: Tensor, target: Tensor) -> Tensor:
    """How far from the true border is what was marked wrongly? For ``--boundary``, beside `mutation_loss`.

    The mean over pixels of ``p d``, with probabilities ``p = sigmoid(logits)`` and the signed distance ``d`` to the
    tumour's border: above 0 outside, below 0 inside. Dice asks how many pixels are wrong; here a pixel is the worse the
    farther away it lies. Slices without tumour have no border, and count 0.

    Args:
        logits: (B, R, N, N).
        target: (B, R, N, N), 0 or 1.

    Returns:
        a scalar, below 0 for a good prediction.

    Source: Kervadec et al. 2019 (arXiv 1812.07032).
    """
    return (logits.float().sigmoid() * signed_distance(target)).mean()


def signed_distance(target: Tensor) -> Tensor:
    """Of each pixel to the border of its slice's mask (..., N, N), in sides of the slice; 0 where the mask is empty."""
    masks = target.detach().cpu().numpy().astype(bool)
    distances = np.zeros(masks.shape, dtype=np.float32)
    for place in np.ndindex(masks.shape[:-2]):
        inside = masks[place]
        if inside.any():
            within = np.maximum(distance_transform_edt(inside) - 1, 0)  # the border's own pixels: 0
            distances[place] = (distance_transform_edt(~inside) - within) / masks.shape[-1]
    return torch.from_numpy(distances).to(target.device)


class _SumOverSubsets(torch.autograd.Function):
    """The sum of `segmentation_loss` over all subsets of maps, with its gradient written out.

    PyTorch would find the same gradient by itself (a test compares both), but it keeps what each step of the loss gave,
    15 maps every time, and walks through all of it twice. Here one pass gives loss and gradient, and 4 maps are kept.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, target: Tensor) -> Tensor:
        members = subsets(len(maps)).to(maps)  # (15, 4), 1 where the map belongs to the subset
        logits = (members @ maps.flatten(1)).view(-1, *maps.shape[1:])  # (15, B, R, H, W)
        probabilities = logits.sigmoid()
        # -y log(p) - (1 - y) log(1 - p), which is log(1 + exp(logit)) - y logit
        cross_entropy = torch.addcmul(F.softplus(logits), logits, target, value=-1).sum() / target.numel()
        overlap = 2 * (probabilities * target).sum(dim=(-2, -1)) + SMOOTHING  # (15, B, R)
        total = probabilities.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) + SMOOTHING  # (15, B, R)
        dice = (1 - overlap / total).sum() / total[0].numel()

        if ctx.needs_input_grad[0]:
            # Slopes by the logit: of cross-entropy p - y; of Dice, by p, overlap / total**2 - 2 y / total; and of p
            # itself p (1 - p).
            share = DICE_SHARE / total[0].numel()
            hit, size = (share * 2 / total)[..., None, None], (share * overlap / total**2)[..., None, None]
            slopes = torch.addcmul(size, hit, target, value=-1)  # (15, B, R, H, W)
            slopes.mul_(torch.addcmul(probabilities, probabilities, probabilities, value=-1))
            slopes.add_(probabilities.sub_(target), alpha=CROSS_ENTROPY_SHARE / target.numel())
            ctx.save_for_backward((members.T @ slopes.flatten(1)).view_as(maps))
        return CROSS_ENTROPY_SHARE * cross_entropy + DICE_SHARE * dice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors  # (4, B, R, H, W)
        return scale * slopes, None


def subsets(count: int) -> Tensor:
    """All non-empty subsets of ``count`` things, as rows of 0 and 1: shape (2**count - 1, count).

    Row ``i`` is the number ``i + 1`` in binary, its lowest digit first.
    """
    numbers = torch.arange(1, 2**count)
    return numbers[:, None] >> torch.arange(count) & 1
