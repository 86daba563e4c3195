"""What the scanner makes of a brain: four images of the same tissue, each with its own contrast, blur and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from emcad_lib.data.anatomy import Anatomy
from emcad_lib.data.fields import COARSE, Fields, blur, upsample, white_noise_after
from emcad_lib.data.harmless import Harmless
from emcad_lib.data.template import hindbrain
from emcad_lib.data.tumour import ENHANCING, NECROSIS, OEDEMA, Growth


def render(recipe: Mapping[str, Any], anatomy: Anatomy, growth: Growth | None) -> Tensor:
    """The four images, int16 (4, I, J, K), 1 or more in the brain and 0 around it and beyond the field of view.

    Args:
        recipe: a whole patient's recipe.
        growth: the tumour, if there is one.
    """
    fields = anatomy.fields
    harmless = Harmless(recipe["harmless"], anatomy, growth)
    tumour = _Tumour(growth, anatomy, recipe["tumour"]) if growth else None
    behind = hindbrain(anatomy.mni)  # (i, j, k)
    images = torch.empty(len(recipe["images"]), *fields.shape, dtype=torch.int16)
    for number, (name, settings) in enumerate(recipe["images"].items()):
        csf, grey, white = settings["tissue"]
        image = white + anatomy.tissue[0] * (csf - white)
        image.add_(anatomy.tissue[1], alpha=grey - white)
        values = image[::3, ::3, ::3][anatomy.brain[::3, ::3, ::3]]  # a sample is enough
        mean, deviation = float(values.mean()), float(values.std())
        image.sub_(mean).div_(deviation)  # now in standard deviations of the healthy brain, as the recipe counts
        slow = settings["hindbrain_z"] * behind + settings["regional_z"] * _regional(anatomy.mni, fields, name)
        image.add_(upsample(slow, fields.shape))
        cortex = settings["cortex_z"] * _regional(anatomy.mni, fields, f"cortex {name}")
        image.addcmul_(upsample(cortex, fields.shape), anatomy.tissue[1])
        image.add_(fields.smooth(f"texture {name}", 6), alpha=settings["texture"])
        harmless.paint(image, settings)
        if tumour:
            tumour.paint(image, settings, name)
        uneven = (settings["bias"] * fields.smooth(f"bias {name}", 70, step=COARSE)).exp_()
        image.add_(mean / deviation).mul_(upsample(uneven, fields.shape))
        left = white_noise_after(settings["blur_mm"])  # so that the finished image has noise of the recipe's strength
        image.add_(fields.noise(f"noise {name}"), alpha=settings["noise"] / left)
        image = blur(image, settings["blur_mm"], settings["shift_mm"])
        image.mul_(settings["brightness"] * deviation / mean).round_().clamp_(1, 32000).mul_(anatomy.brain)
        if settings["cut"]:
            image.mul_(_seen(settings["cut"], image.shape))
        images[number] = image
    return images


def _regional(mni: Tensor, fields: Fields, name: str) -> Tensor:
    """Brightness (i, j, k) that differs from region to region and is the same on the left and on the right.

    A sum of waves, 50 to 150 mm long, of mean 0 and variance 1.
    """
    random = fields.random(f"regional {name}")
    place = torch.stack([mni[0].abs(), mni[1], mni[2]])
    total = torch.zeros_like(mni[0])
    waves = 8
    for _ in range(waves):
        direction = random.standard_normal(3)
        direction *= 6.28 / random.uniform(50, 150) / (direction**2).sum() ** 0.5
        wave = torch.tensor(direction, dtype=torch.float32).view(3, 1, 1, 1) * place
        total += torch.cos(wave.sum(0) + random.uniform(0, 6.28))
    return total * (2 / waves) ** 0.5


def _seen(cut: Mapping[str, Any], shape: torch.Size) -> Tensor:
    """Which voxels (I, J, K) lie in the field of view: on one side of a plane."""
    lines = [
        slope * torch.linspace(-1, 1, length).view([-1 if axis == place else 1 for place in range(3)])
        for axis, (slope, length) in enumerate(zip(cut["slope"], shape, strict=True))
    ]
    return lines[0] + lines[1] + lines[2] < cut["at"]


class _Tumour:
    """What all four images share of the tumour: its parts with soft borders, and how uneven it is."""

    def __init__(self, growth: Growth, anatomy: Anatomy, recipe: Mapping[str, Any]) -> None:
        self.box = growth.box
        self.fields = anatomy.fields
        self.uneven = self.fields.smooth("uneven", 11, part=self.box)
        labels, tissue = growth.labels[self.box], anatomy.tissue[(slice(None), *self.box)]
        oedema, necrosis, enhancing = (
            blur((labels == label).float(), (0.8, 0.8, 0.8)) for label in (OEDEMA, NECROSIS, ENHANCING)
        )
        # Fluid collects in white matter, less in the cortex, and the less the farther from the core.
        swelling = (1 - recipe["cortex_spared"] * tissue[1] - tissue[0]).clamp_(min=0)
        swelling.mul_(1 - recipe["fading"] * growth.spread.square())
        cyst = necrosis * ((recipe["cyst"] - growth.depth) * 6).clamp_(0, 1)
        self.parts = [oedema * swelling, necrosis - cyst, enhancing, cyst]
        self.hidden = 1 - (oedema * swelling + necrosis + enhancing)

    def paint(self, image: Tensor, settings: Mapping[str, Any], name: str) -> None:
        """Paint the tumour into ``image`` (I, J, K) in place."""
        rough = 0.7 * self.uneven + 0.5 * self.fields.smooth(f"grain {name}", 4.5, part=self.box)
        paint = torch.zeros_like(rough)
        for share, brightness, roughness in zip(self.parts, settings["tumour_z"], settings["rough"], strict=True):
            paint += share * (brightness + roughness * rough)
        kept = settings["anatomy_kept"] * self.parts[0]  # the tissue under an oedema shines through
        image[self.box].mul_(self.hidden + kept).add_(paint.sub_(kept * settings["tumour_z"][0]))
