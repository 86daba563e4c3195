"""PVT-EMCAD: an encoder from timm, the EMCAD decoder, and a segmentation head for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch.nn.functional as F
from timm.layers import Format
from torch import Tensor, nn

from emcad_lib.files import CourseError
from emcad_lib.model.ablate import COMPLETE, build_decoder
from emcad_lib.model.blocks import ACTIVATIONS

STRIDES = [4, 8, 16, 32]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that has to be known to build the network again. Training alone cares for drop_path and dropout."""

    encoder: str = "pvt_v2_b0"
    num_classes: int = 1
    in_channels: int = 3
    kernel_sizes: tuple[int, ...] = (1, 3, 5)
    expansion: int = 2
    activation: str = "relu6"
    drop_path: float = 0.0
    variant: str = COMPLETE
    dropout: float = 0.0
    network: str = "emcad"


class Network(nn.Module):
    """A network that can be trained and stored.

    Attributes:
        config: how it was built.
        metadata: what a weights file says about the network: modalities, regions, image size. Empty for a new network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}


class PVTEMCAD(Network):
    """Encoder, decoder, heads. Made by `create_model`.

    Attributes:
        encoder: gives features X1..X4 at strides 4, 8, 16 and 32.
        decoder: `EMCAD`, or one of its variants.
        heads: four 1x1 convolutions, for d4, d3, d2 and d1.
        lift: for one-channel input only: a 1x1 convolution to the three channels that the encoder expects.
        config, metadata: see `Network`.

    Source: Rahman et al. 2024 (arXiv 2405.06880), sections 3.2 and 3.3. Built in notebooks/07.
    """

    def __init__(self, config: ModelConfig, pretrained: bool = False) -> None:
        super().__init__(config)
        self.lift = _lift() if config.in_channels == 1 else nn.Identity()
        self.encoder = _create_encoder(config, pretrained)
        # Swin Transformers, for one, give (B, H, W, C).
        self.channels_last = getattr(self.encoder, "output_fmt", Format.NCHW) == Format.NHWC
        channels = self.encoder.feature_info.channels()
        settings = config.kernel_sizes, config.expansion, config.activation, config.variant
        self.decoder = build_decoder(channels, *settings)
        self.dropout = nn.Dropout2d(config.dropout) if config.dropout else nn.Identity()
        self.heads = nn.ModuleList(nn.Conv2d(width, config.num_classes, kernel_size=1) for width in reversed(channels))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Slices (B, in_channels, H, W) to logits [p4, p3, p2, p1], coarse to fine, each (B, num_classes, H, W).

        H and W must be multiples of 32. p1 is the prediction; the others serve deep supervision.

        Raises:
            ValueError: for another shape of input.
        """
        self._check(x)
        features = self.encoder(self.lift(x))  # X1..X4: (B, C1, H/4, W/4) .. (B, C4, H/32, W/32)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        refined = self.decoder(features)  # d4..d1, with the shapes of X4..X1
        logits = [head(self.dropout(d)) for head, d in zip(self.heads, refined, strict=True)]  # (B, classes, H/32, ..)
        size = x.shape[-2:]
        return [F.interpolate(p, size=size, mode="bilinear", align_corners=False) for p in logits]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.config.in_channels:
            raise ValueError(
                f"The network takes slices of shape (batch, {self.config.in_channels}, height, width), "
                f"not {tuple(x.shape)}. Its in_channels is set in create_model."
            )
        height, width = x.shape[-2:]
        if height % 32 or width % 32:
            padded = tuple(-(-side // 32) * 32 for side in (height, width))
            raise ValueError(
                f"Height and width must be multiples of 32, because the encoder halves them five times; "
                f"{height} x {width} are not. Pad the slices to {padded[0]} x {padded[1]}."
            )


def create_model(
    encoder: str = "pvt_v2_b0",
    num_classes: int = 1,
    in_channels: int = 3,
    kernel_sizes: Sequence[int] = (1, 3, 5),
    expansion: int = 2,
    activation: str = "relu6",
    pretrained: bool = False,
    drop_path: float = 0.0,
    variant: str = COMPLETE,
    dropout: float = 0.0,
) -> PVTEMCAD:
    """Build a PVT-EMCAD network.

    Args:
        encoder: the name of any timm model with features at strides 4, 8, 16 and 32, such as pvt_v2_b0 or pvt_v2_b2.
        num_classes: maps to predict.
        in_channels: of the input. One channel goes through a small convolution to three; for any other number than
            three, timm adapts the encoder's first convolution.
        kernel_sizes: of the multi-scale convolutions, odd.
        expansion: of the multi-scale blocks.
        activation: of the multi-scale blocks: relu, relu6 or gelu.
        pretrained: start the encoder from its ImageNet weights, which timm downloads.
        drop_path: the share of an encoder's residual branches left out at random in training. The published training
            used 0.1.
        variant: of the decoder, one of ``ablate.VARIANTS``: complete, or without one of its blocks.
        dropout: the share of channels left out at random before each head in training. The published one used none.

    Raises:
        CourseError: for a setting that can't be built, or weights that can't be downloaded.
    """
    sizes = tuple(kernel_sizes)
    config = ModelConfig(encoder, num_classes, in_channels, sizes, expansion, activation, drop_path, variant, dropout)
    if not config.kernel_sizes or any(size < 1 or size % 2 == 0 for size in config.kernel_sizes):
        raise CourseError(f"kernel_sizes must be odd numbers such as (1, 3, 5), not {config.kernel_sizes}.")
    if activation not in ACTIVATIONS:
        raise CourseError(f"There is no activation {activation!r}. Choose one of: {', '.join(ACTIVATIONS)}.")
    for name, number in (("num_classes", num_classes), ("in_channels", in_channels), ("expansion", expansion)):
        if number < 1:
            raise CourseError(f"{name} must be 1 or more, not {number}.")
    return PVTEMCAD(config, pretrained)


def _lift() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, kernel_size=1), nn.BatchNorm2d(3), nn.ReLU())


def _create_encoder(config: ModelConfig, pretrained: bool) -> Any:  # timm says what it gives only at run time
    if not timm.is_model(config.encoder):
        similar = timm.list_models(config.encoder[:6] + "*")[:8] or timm.list_models("pvt_v2_*")
        raise CourseError(f"timm knows no encoder {config.encoder!r}. Some that it knows: {', '.join(similar)}.")
    options: dict[str, Any] = {
        "features_only": True,
        "in_chans": 3 if config.in_channels == 1 else config.in_channels,
        "out_indices": _stages(config.encoder),
    }
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    try:
        return timm.create_model(config.encoder, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise _no_features(config.encoder, error) from error
        raise CourseError(
            f"The ImageNet weights of {config.encoder!r} could not be downloaded ({error}). Without internet: "
            f"fetch the file elsewhere and leave out pretrained; then emcad_lib.load_encoder(model, FILE), or to train "
            f"--encoder-weights FILE."
        ) from error


def _stages(encoder: str) -> list[int]:
    """Which of a timm model's stages have the strides that EMCAD needs. A ResNet has one more, at stride 2."""
    try:
        plain: Any = timm.create_model(encoder, features_only=True, pretrained=False)
        strides = plain.feature_info.reduction()
    except Exception as error:
        raise _no_features(encoder, error) from error
    if not set(STRIDES) <= set(strides):
        raise CourseError(
            f"EMCAD needs features at strides {STRIDES}, and {encoder!r} gives {strides}. Take another encoder: "
            f"pvt_v2_b0 to pvt_v2_b5, ResNets and ConvNeXts have them."
        )
    return [strides.index(stride) for stride in STRIDES]


def _no_features(encoder: str, error: Exception) -> CourseError:
    return CourseError(
        f"timm can't give the features of {encoder!r} ({error}). Take another encoder: pvt_v2_b0 to pvt_v2_b5, ResNets "
        f"and ConvNeXts work."
    )
