"""How much memory does an update need, and how many slices at a time fit on a card? Found out without a card.

Four things lie in memory while a network trains: its weights, their gradients, AdamW's two moments of each, and what
the forward pass keeps for the backward pass. The first three are the same for every batch. The last, the activations,
is by far the largest, and grows in a straight line with the number of slices. PyTorch says of each tensor that it
keeps, on whatever device, so the line can be measured on a processor with two small batches.

The most is needed not in the network but in the loss, which lays out 15 sums of maps for a moment (`LOSS_FLOATS`). For
B0 and B2 at 96 and 224 px, PyTorch's profiler saw 0.99 to 1.02 times as much memory in use at the end of a forward pass
as is counted here without that moment, and nowhere in the forward or backward pass more than is counted with it. On
a GPU there are besides CUDA's own few hundred megabytes, the scratch memory of its convolutions, and what the allocator
can't use between two blocks. So leave some of a card free.

With mixed precision the numbers are estimates: PyTorch decides for each operation whether it works in 16 or in 32
bits, and its lists differ between processors (bf16) and CUDA (fp16). The difference that matters here is layer
normalisation, which works in 32 bits on CUDA and in 16 on a processor, and with it the sums that go from block to block
of the encoder; so it's put into 32 bits for the measurement. A count by CUDA's own lists, on tensors without memory,
gave 7 and 8% more per slice (B2 and B0 at 224 px), and 2 and 3% more without mixed precision. Part of that is
attention: where there is no GPU, PyTorch's choice for CUDA is one that keeps its map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import PVTEMCAD
from emcad_lib.model.trace import kept_bytes
from emcad_lib.train.losses import mutation_loss

ADAMW_MOMENTS = 2  # the running means of each weight's gradient and of its square
LOSS_FLOATS = 72  # 32-bit numbers for each pixel and region, at most: 61 to 70 seen. 15 sums, their probabilities, ...
_MEASURED = 2, 3  # slices. A single one may go other ways: where a side is 1, memory of another order needs no copy


@dataclass(frozen=True)
class Footprint:
    """The memory of a training, in bytes.

    Attributes:
        constant: weights, gradients, AdamW's moments, running statistics; see `constant_bytes`.
        per_pass: what a forward pass keeps once: in mixed precision, above all the 16-bit copies of the weights.
        per_slice: what it keeps of each slice.
        for_a_moment: what the loss takes for each slice and gives back at once.
    """

    constant: int
    per_pass: int
    per_slice: int
    for_a_moment: int = 0

    def activations(self, slices: int) -> int:
        """What a forward pass over so many slices keeps."""
        return self.per_pass + slices * self.per_slice

    def total(self, slices: int) -> int:
        """All together, at the moment when it's most."""
        return self.constant + self.activations(slices) + slices * self.for_a_moment


def activation_bytes(model: PVTEMCAD, image_size: int, batch_size: int, mixed_precision: bool = False) -> int:
    """Bytes that a forward pass with the training's loss keeps for the backward pass, measured.

    Each piece of memory is counted once. Parameters aren't counted, the slices are. It's done on the processor, with
    all the memory that it measures.

    Args:
        model: the network, on the processor; it stays as it is.
        image_size: pixels along each side of a slice, a multiple of 32.
        batch_size: slices in the pass.
        mixed_precision: with 16-bit numbers where CUDA would take them, an estimate: see above.

    Raises:
        CourseError: for one slice of 32 px, with which no network with batch normalisation can train.
    """
    config = model.config
    x = torch.zeros(batch_size, config.in_channels, image_size, image_size)
    target = torch.zeros(batch_size, config.num_classes, image_size, image_size)

    def forward(worker: nn.Module, x: Tensor) -> None:
        if mixed_precision:
            for module in worker.modules():
                if isinstance(module, nn.LayerNorm):
                    module.register_forward_pre_hook(_in_32_bits)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed_precision):
            maps = worker(x)
        # accelerate, which the training uses, hands the maps on in 32 bits and leaves the loss out of autocast.
        mutation_loss([logits.float() for logits in maps], target)

    return kept_bytes(model, x, forward)


def constant_bytes(model: nn.Module) -> int:
    """Bytes of the weights, their gradients, AdamW's moments and the running statistics.

    Mixed precision doesn't change them: weights and moments stay in 32 bits.
    """
    weights = sum(weight.nbytes for weight in model.parameters())
    return (2 + ADAMW_MOMENTS) * weights + sum(buffer.nbytes for buffer in model.buffers())


def footprint(model: PVTEMCAD, image_size: int, mixed_precision: bool = False) -> Footprint:
    """The memory that training the network takes, for every size of batch, from measurements of 2 and 3 slices.

    Arguments as in `activation_bytes`.
    """
    few, more = (activation_bytes(model, image_size, slices, mixed_precision) for slices in _MEASURED)
    per_slice = (more - few) // (_MEASURED[1] - _MEASURED[0])
    for_a_moment = 4 * LOSS_FLOATS * model.config.num_classes * image_size**2
    return Footprint(constant_bytes(model), few - _MEASURED[0] * per_slice, per_slice, for_a_moment)


def largest_batch(needs: Footprint, free_bytes: float) -> int:
    """The most slices that a pass, forward and backward, can hold in so much memory; 0 where not even one fits."""
    for_slices = free_bytes - needs.constant - needs.per_pass
    return max(int(for_slices // (needs.per_slice + needs.for_a_moment)), 0)


def accumulate_for(batch_size: int, needs: Footprint, free_bytes: float) -> int:
    """Into how many passes an update of ``batch_size`` slices must be divided so that each fits; 1: no division.

    The gradients of the passes add up to those of the whole batch, but batch normalisation compares only the slices of
    one pass: an update of 16 slices in four passes isn't quite one of 16 at once.

    Args:
        batch_size: slices in an update.
        needs: what the training takes, from `footprint`.
        free_bytes: of the card, without what is to be left free.

    Raises:
        CourseError: when not even one slice fits.
    """
    at_once = largest_batch(needs, free_bytes)
    if at_once == 0:
        raise CourseError(
            f"Training on one slice takes {needs.total(1) / 1e9:.2f} GB, and {free_bytes / 1e9:.2f} GB are free. Take "
            "a smaller --image-size, a smaller --encoder, or --mixed-precision fp16."
        )
    return -(-batch_size // at_once)


def _in_32_bits(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if isinstance(value, Tensor) else value for value in inputs)
