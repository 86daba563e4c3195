"""EMCAD: four stages of features in, four refined stages out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from emcad_lib.model.blocks import EUCB, LGAG, MSCAM, SAB


class EMCAD(nn.Module):
    """Efficient multi-scale convolutional attention decoder.

    It starts at the coarsest features, refines them, and works its way up: double the size, ask the encoder for the
    details (LGAG), add them, refine (MSCAM).

    Args:
        channels: of the encoder's stages X1..X4, fine to coarse, at strides 4, 8, 16 and 32.
        kernel_sizes, expansion, activation: of the multi-scale blocks.

    Source: Rahman et al. 2024 (arXiv 2405.06880), section 3.1 and figure 2.
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernel_sizes: Sequence[int] = (1, 3, 5),
        expansion: int = 2,
        activation: str = "relu6",
    ) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.sab = SAB()

        def refine(width: int) -> MSCAM:
            return MSCAM(width, kernel_sizes, expansion, activation, shared_sab=self.sab)

        self.mscam4 = refine(c4)
        self.eucb3, self.lgag3, self.mscam3 = EUCB(c4, c3), LGAG(c3), refine(c3)
        self.eucb2, self.lgag2, self.mscam2 = EUCB(c3, c2), LGAG(c2), refine(c2)
        self.eucb1, self.lgag1, self.mscam1 = EUCB(c2, c1), LGAG(c1), refine(c1)
        self.apply(initialise)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder features [X1, X2, X3, X4] to refined features [d4, d3, d2, d1], coarse to fine.

        X_s and d_s have the same shape: (B, C_s, H / 2^(s+1), W / 2^(s+1)).
        """
        x1, x2, x3, x4 = features
        d4 = self.mscam4(x4)  # (B, C4, H/32, W/32)
        u3 = self.eucb3(d4)  # (B, C3, H/16, W/16)
        d3 = self.mscam3(u3 + self.lgag3(g=u3, x=x3))
        u2 = self.eucb2(d3)  # (B, C2, H/8, W/8)
        d2 = self.mscam2(u2 + self.lgag2(g=u2, x=x2))
        u1 = self.eucb1(d2)  # (B, C1, H/4, W/4)
        d1 = self.mscam1(u1 + self.lgag1(g=u1, x=x1))
        return [d4, d3, d2, d1]


def initialise(module: nn.Module) -> None:
    """Small random convolutions and neutral normalisation, as in the published training."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
