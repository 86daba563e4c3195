"""Other networks that can stand in EMCAD's place, to compare with. All from well-kept libraries, none of them ours."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import ModelConfig, Network, create_model

EMCAD = "emcad"
WIDTHS = (32, 64, 128, 256, 512)  # channels of MONAI's networks, from the finest stage to the coarsest


class OtherNetwork(Network):
    """A network with one map of logits, in the form that the training and the prediction of the course expect."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.network = _BUILDERS[config.network](config)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Slices (B, in_channels, H, W) to logits [p], (B, num_classes, H, W). H and W must be multiples of 32."""
        return [self.network(x)]


def create_network(network: str = EMCAD, **settings: Any) -> Network:
    """Build the network of that name: one of NETWORKS.

    Args:
        network: "emcad"; "unet" and "attention_unet", from MONAI; "smp_unet", from segmentation-models-pytorch, on the
            same timm encoder as EMCAD.
        settings: as `create_model` takes them. Other networks than EMCAD care for num_classes, in_channels and (the
            last one) encoder and drop_path.

    Raises:
        CourseError: for an unknown name, a library that isn't installed, or as `create_model`.

    Source: Ronneberger et al. 2015 (arXiv 1505.04597), U-Net; Oktay et al. 2018 (arXiv 1804.03999), Attention U-Net.
    """
    if network == EMCAD:
        return create_model(**settings)
    if network not in NETWORKS:
        raise CourseError(f"There is no network {network!r}. Choose one of: {', '.join(NETWORKS)}.")
    settings.pop("pretrained", None)
    return OtherNetwork(ModelConfig(**settings, network=network))


def _unet(config: ModelConfig) -> nn.Module:
    from monai.networks.nets import UNet  # seconds to import: only for those who ask for it

    strides = (2,) * (len(WIDTHS) - 1)
    return UNet(2, config.in_channels, config.num_classes, WIDTHS, strides, num_res_units=2, norm="batch")


def _attention_unet(config: ModelConfig) -> nn.Module:
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, config.in_channels, config.num_classes, WIDTHS, (2,) * (len(WIDTHS) - 1))


def _smp_unet(config: ModelConfig) -> nn.Module:
    try:
        from segmentation_models_pytorch import Unet  # type: ignore[import-untyped]
    except ImportError as error:
        raise CourseError(
            "The network smp_unet needs a package that isn't installed: pip install segmentation-models-pytorch"
        ) from error
    options = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    name = f"tu-{config.encoder}"  # an encoder of timm
    return Unet(name, encoder_weights=None, in_channels=config.in_channels, classes=config.num_classes, **options)


_BUILDERS = {"unet": _unet, "attention_unet": _attention_unet, "smp_unet": _smp_unet}
NETWORKS = (EMCAD, *_BUILDERS)
