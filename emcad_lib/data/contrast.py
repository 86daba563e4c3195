"""What the scanner makes of a brain: four images of the same tissue, each with its own contrast, blur and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emcad_lib.data.anatomy import Anatomy, Fields
from emcad_lib.data.tumour import ENHANCING, NECROSIS, OEDEMA, box_around


def render(recipe: Mapping[str, Any], anatomy: Anatomy, labels: Tensor, fields: Fields) -> Tensor:
    """The four images, float32 (4, I, J, K) with whole numbers of 1 or more in the brain and 0 around it.

    Args:
        recipe: a whole patient's recipe.
        labels: uint8 (I, J, K), the tumour.
    """
    lesions = _lesions(recipe["lesions"], anatomy, fields) * (labels == 0)
    vessels = _vessels(anatomy, fields) * (labels == 0)
    images = []
    for name, settings in recipe["images"].items():
        image = torch.tensordot(torch.tensor(settings["tissue"], dtype=torch.float32), anatomy.tissue, dims=1)
        healthy = image[anatomy.brain]
        mean, deviation = float(healthy.mean()), float(healthy.std())
        image.sub_(mean).div_(deviation)  # now in standard deviations of the healthy brain, as the recipe counts
        image += settings["texture"] * fields.smooth(f"texture {name}", 6)
        image += settings["lesion_z"] * lesions
        if settings["vessel_z"]:
            image += settings["vessel_z"] * vessels
        _paint_tumour(image, settings, labels, fields, name)
        image.add_(mean / deviation)
        image *= torch.exp(settings["bias"] * fields.smooth(f"bias {name}", 70))
        image += settings["noise"] * fields.noise(f"noise {name}")
        image = _blur(image, settings["blur_mm"])
        whole_numbers = (image * (settings["brightness"] * deviation / mean)).round_().clamp_(1, 32000)
        images.append(whole_numbers * anatomy.brain)
    return torch.stack(images)


def _paint_tumour(image: Tensor, settings: Mapping[str, Any], labels: Tensor, fields: Fields, name: str) -> None:
    """Paint the tumour's parts into ``image`` (I, J, K) in place, with soft borders and a texture of their own."""
    if not labels.any():
        return
    box = tuple(slice(max(part.start - 3, 0), part.stop + 3) for part in box_around(labels > 0))
    part, inside = image[box], labels[box]
    parts = torch.stack([(inside == label).float() for label in (OEDEMA, NECROSIS, ENHANCING)])
    soft = torch.stack([_blur(mask, (0.8, 0.8, 0.8)) for mask in parts])
    uneven = fields.smooth("uneven", 11)[box]
    grain = fields.smooth(f"grain {name}", 4.5)[box]
    paint = torch.zeros_like(part)
    for share, brightness, rough in zip(soft, settings["tumour_z"], (0.25, 0.5, 0.35), strict=True):
        paint += share * (brightness + rough * (0.7 * uneven + 0.5 * grain))
    kept = settings["anatomy_kept"] * soft[0]  # the tissue under an oedema shines through
    part.mul_(1 - soft.sum(0) + kept).add_(paint * (1 - kept))


def _lesions(recipe: Mapping[str, Any], anatomy: Anatomy, fields: Fields) -> Tensor:
    """Spots of old, harmless damage in white matter beside the ventricles, 0..1: bright in FLAIR, and no tumour."""
    beside = anatomy.ventricles * anatomy.tissue[2]
    spots = fields.smooth("lesions", recipe["size_mm"]) + recipe["amount"]
    return ((beside - 0.04) * 8).clamp_(0, 1) * spots.clamp_(0, 1)


def _vessels(anatomy: Anatomy, fields: Fields) -> Tensor:
    """Vessels and choroid plexus, 0..1, which take up contrast agent: thin tubes near CSF, and tufts in the ventricles."""
    one, other = fields.smooth("vessels 1", 13), fields.smooth("vessels 2", 13)
    tubes = torch.exp(-(one**2 + other**2) * 40)  # along the lines where both fields cross zero
    near_csf = (anatomy.tissue[0] * 2 + 0.1).clamp_(0, 1)
    tufts = (anatomy.ventricles - 0.35).clamp_(0, 1) * (fields.smooth("choroid plexus", 8) - 0.8).clamp_(0, 1) * 2
    return torch.maximum(tubes * near_csf, tufts)


def _blur(image: Tensor, sigma: tuple[float, ...] | list[float]) -> Tensor:
    """Gaussian blur of an image (I, J, K), with a width in voxels for each axis."""
    blurred = image[None, None]
    for axis, width in enumerate(sigma):
        reach = max(1, int(np.ceil(2.5 * width)))
        steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
        kernel = torch.exp(-(steps**2) / (2 * width**2))
        shape = [1] * 5
        shape[2 + axis] = len(kernel)
        padding = [0] * 6
        padding[5 - 2 * axis] = padding[4 - 2 * axis] = reach
        blurred = F.conv3d(F.pad(blurred, padding, mode="replicate"), (kernel / kernel.sum()).view(shape))
    return blurred[0, 0]
