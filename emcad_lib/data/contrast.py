"""What the scanner makes of a brain: four images of the same tissue, each with its own contrast, blur and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from emcad_lib.data.anatomy import Anatomy
from emcad_lib.data.fields import Fields, blur, white_noise_after
from emcad_lib.data.tumour import ENHANCING, NECROSIS, OEDEMA, box_around


def render(recipe: Mapping[str, Any], anatomy: Anatomy, labels: Tensor) -> Tensor:
    """The four images, int16 (4, I, J, K), 1 or more in the brain and 0 around it.

    Args:
        recipe: a whole patient's recipe.
        labels: uint8 (I, J, K), the tumour.
    """
    fields = anatomy.fields
    healthy = labels == 0
    lesions = _lesions(recipe["lesions"], anatomy).mul_(healthy)
    vessels = _vessels(anatomy).mul_(healthy)
    tumour = _Tumour(labels, fields) if not healthy.all() else None
    images = torch.empty(len(recipe["images"]), *fields.shape, dtype=torch.int16)
    for number, (name, settings) in enumerate(recipe["images"].items()):
        csf, grey, white = settings["tissue"]
        image = white + anatomy.tissue[0] * (csf - white)
        image.add_(anatomy.tissue[1], alpha=grey - white)
        values = image[anatomy.brain]
        mean, deviation = float(values.mean()), float(values.std())
        image.sub_(mean).div_(deviation)  # now in standard deviations of the healthy brain, as the recipe counts
        image.add_(fields.smooth(f"texture {name}", 6), alpha=settings["texture"])
        image.add_(lesions, alpha=settings["lesion_z"])
        if settings["vessel_z"]:
            image += vessels * (settings["vessel_z"] - image)
        if tumour:
            tumour.paint(image, settings, name)
        image.add_(mean / deviation).mul_(fields.smooth(f"bias {name}", 70).mul_(settings["bias"]).exp_())
        image.add_(fields.noise(f"noise {name}"), alpha=settings["noise"] / white_noise_after(settings["blur_mm"]))
        image = blur(image, settings["blur_mm"], settings["shift_mm"])
        image.mul_(settings["brightness"] * deviation / mean).round_().clamp_(1, 32000).mul_(anatomy.brain)
        images[number] = image
    return images


class _Tumour:
    """What all four images share of the tumour: its parts with soft borders, and how uneven it is."""

    def __init__(self, labels: Tensor, fields: Fields) -> None:
        low_high = [slice(max(part.start - 3, 0), part.stop + 3) for part in box_around(labels > 0)]
        self.box = (low_high[0], low_high[1], low_high[2])
        self.fields = fields
        self.uneven = fields.smooth("uneven", 11)[self.box]
        parts = [(labels[self.box] == label).float() for label in (OEDEMA, NECROSIS, ENHANCING)]
        self.parts = [blur(part, (0.8, 0.8, 0.8)) for part in parts]

    def paint(self, image: Tensor, settings: Mapping[str, Any], name: str) -> None:
        """Paint the tumour into ``image`` (I, J, K) in place."""
        rough = 0.7 * self.uneven + 0.5 * self.fields.smooth(f"grain {name}", 4.5)[self.box]
        paint = torch.zeros_like(rough)
        for share, brightness, roughness in zip(self.parts, settings["tumour_z"], (0.25, 0.5, 0.35), strict=True):
            paint += share * (brightness + roughness * rough)
        kept = settings["anatomy_kept"] * self.parts[0]  # the tissue under an oedema shines through
        image[self.box].mul_(1 - sum(self.parts) + kept).add_(paint * (1 - kept))


def _lesions(recipe: Mapping[str, Any], anatomy: Anatomy) -> Tensor:
    """Spots of old, harmless damage in white matter beside the ventricles, 0..1: bright in FLAIR, and no tumour."""
    beside = anatomy.ventricles * anatomy.tissue[2]
    spots = anatomy.fields.smooth("lesions", recipe["size_mm"]).add_(recipe["amount"])
    return beside.sub_(0.04).mul_(8).clamp_(0, 1).mul_(spots.clamp_(0, 1))


def _vessels(anatomy: Anatomy) -> Tensor:
    """What takes up contrast agent in every brain, 0..1: vessels near CSF, and choroid plexus in the ventricles."""
    one, other = (anatomy.fields.smooth(f"vessels {number}", 13) for number in (1, 2))
    tubes = one.square_().add_(other.square_()).mul_(-12).add_(1).clamp_(0)  # lines where both fields cross zero
    tubes.mul_((anatomy.tissue[0] * 2).add_(0.25).clamp_(0, 1))
    tufts = anatomy.fields.smooth("choroid plexus", 8).sub_(0.8).clamp_(0, 0.5).mul_(2)
    return torch.maximum(tubes, tufts.mul_((anatomy.ventricles - 0.35).clamp_(0, 1)))
