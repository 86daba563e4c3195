"""What the network is asked to make small: cross-entropy and Dice, on every sum of its four maps.

Logits and targets are (..., H, W). Several regions are several channels, each with a sigmoid of its own, because the
regions overlap: the whole tumour contains its core, and the core its enhancing part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

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
        maps: logits [p4, p3, p2, p1], each (B, R, H, W).
        target: (B, R, H, W), 0 or 1.

    Returns:
        a scalar.

    Source: Rahman et al. 2024 (arXiv 2405.06880), section 3.3, where the subsets are called MUTATION.
    """
    members = subsets(len(maps)).to(maps[0])  # (15, 4), 1 where the map belongs to the subset
    mixtures = torch.einsum("sm,mbrhw->sbrhw", members, torch.stack(list(maps)))  # (15, B, R, H, W)
    # The subsets weigh equally in the mean over (15, B, R, H, W): their sum is 15 times that mean.
    return len(members) * segmentation_loss(mixtures, target)


def subsets(count: int) -> Tensor:
    """All non-empty subsets of ``count`` things, as rows of 0 and 1: shape (2**count - 1, count).

    Row ``i`` is the number ``i + 1`` in binary, its lowest digit first.
    """
    numbers = torch.arange(1, 2**count)
    return numbers[:, None] >> torch.arange(count) & 1
