"""The blocks of EMCAD, under the names that the paper gives them.

Features are tensors of shape (B, C, H, W): batch, channels, height, width.
Source: Rahman et al. 2024 (arXiv 2405.06880), section 3.1. Built step by step in notebooks 03 to 06.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "gelu": nn.GELU}


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Shuffle the channels of ``x`` (B, C, H, W): cut them into ``groups`` piles, take one from each in turn."""
    return F.channel_shuffle(x, groups)  # PyTorch's own leaves the order of x in memory as it is


class MSDC(nn.Module):
    """Multi-scale depth-wise convolution: what does each channel look like at several zooms at once?

    Every branch filters each channel on its own with a square kernel of its size. All branches see the same input,
    and their results are added:  ``sum_k act(BN(depthwise_k(x)))``.

    Args:
        channels: C, in and out.
        kernel_sizes: one branch for each; odd, so that the output keeps the input's size.
        activation: a key of ``ACTIVATIONS``.

    Source: section 3.1 of the paper. Built in notebooks/03.
    """

    def __init__(self, channels: int, kernel_sizes: Sequence[int] = (1, 3, 5), activation: str = "relu6") -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False),
                nn.BatchNorm2d(channels),
                ACTIVATIONS[activation](),
            )
            for size in kernel_sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to features of the same shape."""
        scales = [branch(x) for branch in self.branches]  # one (B, C, H, W) for each kernel size
        return sum(scales[1:], scales[0])  # (B, C, H, W)


class MSCB(nn.Module):
    """Multi-scale convolution block: widen, look at several scales, mix, narrow.

    ``BN(pointwise(shuffle(MSDC(act(BN(pointwise(x)))))))``, added to a shortcut. The two pointwise (1x1) convolutions
    mix the channels; between them MSDC mixes neighbouring pixels, in ``expansion`` times as many channels.

    Args:
        in_channels: C.
        out_channels: C_out; where it differs from C, the shortcut is a 1x1 convolution without bias.
        kernel_sizes: of the depth-wise branches.
        expansion: e; the block is e times C wide inside.
        activation: a key of ``ACTIVATIONS``.

    Source: section 3.1 of the paper. Built in notebooks/03.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Sequence[int] = (1, 3, 5),
        expansion: int = 2,
        activation: str = "relu6",
    ) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.widen = nn.Sequential(
            nn.Conv2d(in_channels, wide, kernel_size=1, bias=False),
            nn.BatchNorm2d(wide),
            ACTIVATIONS[activation](),
        )
        self.msdc = MSDC(wide, kernel_sizes, activation)
        self.groups = math.gcd(wide, out_channels)
        self.narrow = nn.Sequential(
            nn.Conv2d(wide, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to features (B, C_out, H, W)."""
        wide = self.widen(x)  # (B, eC, H, W)
        scales = self.msdc(wide)  # (B, eC, H, W)
        shuffled = channel_shuffle(scales, self.groups)  # (B, eC, H, W)
        return self.narrow(shuffled) + self.shortcut(x)  # (B, C_out, H, W)


class CAB(nn.Module):
    """Channel attention block: how much does each channel matter for this image?

    A two-layer bottleneck judges each channel once by its average and once by its maximum over the image; the two
    opinions are added and squashed to (0, 1):  ``sigmoid(f(avg(x)) + f(max(x)))``.

    Args:
        channels: C.
        reduction: the bottleneck has C / reduction channels, or one where C is smaller than that.

    Source: section 3.1 of the paper. Built in notebooks/04.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Conv2d(channels, hidden, kernel_size=1, bias=False)
        self.expand = nn.Conv2d(hidden, channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weights of shape (B, C, 1, 1) in (0, 1) for features ``x`` of shape (B, C, H, W)."""
        average = self._judge(F.adaptive_avg_pool2d(x, 1))  # (B, C, 1, 1)
        maximum = self._judge(F.adaptive_max_pool2d(x, 1))  # (B, C, 1, 1)
        return torch.sigmoid(average + maximum)

    def _judge(self, pooled: Tensor) -> Tensor:
        return self.expand(F.relu(self.squeeze(pooled)))


class SAB(nn.Module):
    """Spatial attention block: where in the image is something worth looking at?

    At each pixel the channels are summed up by their mean and their maximum; one large convolution looks at both:
    ``sigmoid(conv_7x7([mean(x), max(x)]))``. It never asks how many channels there are: one SAB can serve every stage.

    Source: section 3.1 of the paper. Built in notebooks/04.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weights of shape (B, 1, H, W) in (0, 1) for features ``x`` of shape (B, C, H, W)."""
        mean = x.mean(dim=1, keepdim=True)  # (B, 1, H, W)
        maximum = x.amax(dim=1, keepdim=True)  # (B, 1, H, W)
        return torch.sigmoid(self.conv(torch.cat([mean, maximum], dim=1)))


class MSCAM(nn.Module):
    """Multi-scale convolutional attention module: which channels, then where, then at which scales.

    ``MSCB(SAB(y) * y)`` with ``y = CAB(x) * x``.

    Args:
        channels: C, in and out.
        kernel_sizes, expansion, activation: of the MSCB.
        shared_sab: the SAB to use; without one, the module makes its own. The decoder lends one SAB to all four stages,
            as the published weights do.

    Source: section 3.1 of the paper. Built in notebooks/04.
    """

    def __init__(
        self,
        channels: int,
        kernel_sizes: Sequence[int] = (1, 3, 5),
        expansion: int = 2,
        activation: str = "relu6",
        shared_sab: SAB | None = None,
    ) -> None:
        super().__init__()
        self.cab = CAB(channels)
        if shared_sab is None:
            self.sab = SAB()
        # A tuple hides the lent SAB from PyTorch's register, so that it's saved and counted once, with its owner.
        self.lent: tuple[nn.Module, ...] = () if shared_sab is None else (shared_sab,)
        self.mscb = MSCB(channels, channels, kernel_sizes, expansion, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to features of the same shape."""
        sab = self.lent[0] if self.lent else self.sab
        x = self.cab(x) * x  # (B, C, 1, 1) * (B, C, H, W)
        x = sab(x) * x  # (B, 1, H, W) * (B, C, H, W)
        return self.mscb(x)  # (B, C, H, W)


class LGAG(nn.Module):
    """Large-kernel grouped attention gate: what of the skip connection does the decoder ask for?

    ``x * sigmoid(BN(conv_1x1(relu(BN(grouped_3x3(g)) + BN(grouped_3x3(x))))))``. The gate opens at a pixel where the
    decoder's features g and the encoder's features x agree that there is something. Grouping the 3x3 convolutions, two
    channels to each filter, makes a large kernel affordable.

    Args:
        channels: C, of both g and x.

    Source: section 3.1 of the paper. Built in notebooks/05.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.judge_decoder = nn.Sequential(nn.Conv2d(channels, half, 3, padding=1, groups=half), nn.BatchNorm2d(half))
        self.judge_skip = nn.Sequential(nn.Conv2d(channels, half, 3, padding=1, groups=half), nn.BatchNorm2d(half))
        self.agree = nn.Sequential(nn.Conv2d(half, 1, kernel_size=1), nn.BatchNorm2d(1))

    def opening(self, g: Tensor, x: Tensor) -> Tensor:
        """How far the gate is open at each pixel: (B, 1, H, W), each value in (0, 1)."""
        opinion = F.relu(self.judge_decoder(g) + self.judge_skip(x))  # (B, C / 2, H, W)
        return torch.sigmoid(self.agree(opinion))  # (B, 1, H, W)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        """The skip features ``x`` (B, C, H, W), dimmed where the decoder's ``g`` (B, C, H, W) does not ask for them."""
        return self.opening(g, x) * x


class EUCB(nn.Module):
    """Efficient up-convolution block: twice the size, without a transposed convolution's cost.

    ``conv_1x1(relu(BN(depthwise_3x3(upsample(x)))))``: repeat each pixel, let every channel smooth its own steps, then
    mix the channels. The published code shuffles the channels before the 1x1 with as many groups as channels, which
    changes nothing (shown in notebooks/06), so it is left out here.

    Args:
        in_channels, out_channels: C and C_out.

    Source: section 3.1 of the paper. Built in notebooks/06.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, kernel_size=3, padding=1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to features (B, C_out, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")  # (B, C, 2H, 2W)
        return self.pointwise(self.depthwise(x))  # (B, C_out, 2H, 2W)
