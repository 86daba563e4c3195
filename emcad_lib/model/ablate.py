"""EMCAD with one block taken away or exchanged: what is each block good for?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emcad_lib.files import CourseError
from emcad_lib.model.decoder import EMCAD, initialise

COMPLETE = "complete"

# What each variant of the decoder changes. Everything else stays as it is.
VARIANTS = {
    COMPLETE: "nothing",
    "no-cab": "without CAB: all channels count alike",
    "no-sab": "without SAB: all places count alike",
    "no-lgag": "without LGAG: the skip connections pass unchecked",
    "one-kernel": "a single 3x3 branch in each MSDC",
    "concatenation": "the gated skip beside the decoder's features and a 1x1 convolution over both, not their sum",
}


class Everything(nn.Module):
    """In place of CAB or SAB: weights of 1, so that everything passes as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to a single 1, which multiplies any of them."""
        return x.new_ones(())


class Unchecked(nn.Module):
    """In place of LGAG: the skip connection as it is."""

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        """The skip features ``x`` (B, C, H, W), whatever the decoder's ``g`` asks for."""
        return x


class ConcatenatingEMCAD(EMCAD):
    """EMCAD that puts skip and decoder features side by side, as a U-Net does, and lets a 1x1 convolution mix them."""

    def __init__(
        self,
        channels: Sequence[int],
        kernel_sizes: Sequence[int] = (1, 3, 5),
        expansion: int = 2,
        activation: str = "relu6",
    ) -> None:
        super().__init__(channels, kernel_sizes, expansion, activation)
        c1, c2, c3, _ = channels
        self.join3, self.join2, self.join1 = (nn.Conv2d(2 * c, c, kernel_size=1) for c in (c3, c2, c1))
        for join in (self.join3, self.join2, self.join1):
            initialise(join)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """As `EMCAD.forward`."""
        x1, x2, x3, x4 = features
        d4 = self.mscam4(x4)  # (B, C4, H/32, W/32)
        u3 = self.eucb3(d4)  # (B, C3, H/16, W/16)
        d3 = self.mscam3(self.join3(torch.cat([u3, self.lgag3(g=u3, x=x3)], dim=1)))  # 2 C3 -> C3
        u2 = self.eucb2(d3)  # (B, C2, H/8, W/8)
        d2 = self.mscam2(self.join2(torch.cat([u2, self.lgag2(g=u2, x=x2)], dim=1)))
        u1 = self.eucb1(d2)  # (B, C1, H/4, W/4)
        d1 = self.mscam1(self.join1(torch.cat([u1, self.lgag1(g=u1, x=x1)], dim=1)))
        return [d4, d3, d2, d1]


def build_decoder(
    channels: Sequence[int],
    kernel_sizes: Sequence[int] = (1, 3, 5),
    expansion: int = 2,
    activation: str = "relu6",
    variant: str = COMPLETE,
) -> EMCAD:
    """The decoder, complete or in one of `VARIANTS`.

    Raises:
        CourseError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise CourseError(f"There is no variant {variant!r} of the decoder. Choose one of: {', '.join(VARIANTS)}.")
    kind = ConcatenatingEMCAD if variant == "concatenation" else EMCAD
    decoder = kind(channels, (3,) if variant == "one-kernel" else kernel_sizes, expansion, activation)
    if variant == "no-cab":
        for stage in (4, 3, 2, 1):
            decoder.get_submodule(f"mscam{stage}").register_module("cab", Everything())
    elif variant == "no-sab":
        decoder.register_module("sab", Everything())
        for mscam in (decoder.mscam4, decoder.mscam3, decoder.mscam2, decoder.mscam1):
            mscam.lent = (decoder.sab,)
    elif variant == "no-lgag":
        for stage in (3, 2, 1):
            decoder.register_module(f"lgag{stage}", Unchecked())
    return decoder
