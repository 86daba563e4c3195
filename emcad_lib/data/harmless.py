"""What is bright in a head and no tumour: what a network must learn to leave alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from emcad_lib.data.anatomy import HALF, Anatomy
from emcad_lib.data.fields import COARSE, upsample
from emcad_lib.data.template import tentorium
from emcad_lib.data.tumour import Growth


class Harmless:
    """Harmless bright spots of one patient, each float32 (I, J, K), 0..1.

    Attributes:
        lesions: old damage in white matter, at the ventricles' edge and in spots: bright in FLAIR and T2.
        vessels: what takes up contrast agent: vessels in furrows, choroid plexus, and the large veins in the midline
            and at the back.
        remnants: patches of the brain's wrapping that the skull stripping has left on the surface.
        pulsation: CSF that moves while the picture is taken, in ventricles and round the brain stem: bright in FLAIR.
    """

    def __init__(self, recipe: Mapping[str, Any], anatomy: Anatomy, growth: Growth | None) -> None:
        self.lesions = _lesions(recipe, anatomy)
        self.vessels = _vessels(recipe, anatomy)
        self.remnants = _remnants(recipe, anatomy)
        self.pulsation = _pulsation(recipe, anatomy)
        if growth:
            healthy = growth.labels[growth.box] == 0
            for spots in (self.lesions, self.vessels, self.remnants, self.pulsation):
                spots[growth.box].mul_(healthy)

    def paint(self, image: Tensor, settings: Mapping[str, Any]) -> None:
        """Add them to ``image`` (I, J, K), which counts in standard deviations of the healthy brain, in place."""
        image.addcmul_(self.remnants, settings["remnant_z"] - image)
        image.add_(self.lesions, alpha=settings["lesion_z"])
        if settings["vessel_z"]:
            image.addcmul_(self.vessels, settings["vessel_z"] - image)
        if settings["pulsation_z"]:
            image.add_(self.pulsation, alpha=settings["pulsation_z"])


def _lesions(recipe: Mapping[str, Any], anatomy: Anatomy) -> Tensor:
    white = anatomy.tissue[2]
    spots = upsample(anatomy.fields.smooth("lesions", recipe["lesion_mm"], step=HALF), white.shape)
    beside = (anatomy.ventricles * white).sub_(0.04).mul_(8).clamp_(0, 1)
    single = spots.sub(recipe["single_lesions"]).mul_(2).clamp_(0, 1).mul_(white)
    return torch.maximum(beside.mul_(spots.add_(recipe["lesions"]).clamp_(0, 1)), single)


def _vessels(recipe: Mapping[str, Any], anatomy: Anatomy) -> Tensor:
    fields, mni, csf = anatomy.fields, anatomy.mni, anatomy.tissue[0]
    one, other = (upsample(fields.smooth(f"vessels {number}", 9, step=HALF), csf.shape) for number in (1, 2))
    tubes = one.square_().add_(other.square_()).mul_(-12).add_(recipe["vessels"]).clamp_(0, 1)  # where both are near 0
    tubes.mul_((csf * 2).add_(0.25).clamp_(0, 1))
    tufts = upsample(fields.smooth("choroid plexus", 8, step=HALF), csf.shape).sub_(0.8).clamp_(0, 0.5).mul_(2)
    tubes = torch.maximum(tubes, tufts.mul_((anatomy.ventricles - 0.35).clamp_(0, 1)))
    # The large veins: along the midline from the forehead over the top to the back, and round the cerebellum's roof.
    width = recipe["sinus_mm"]
    midline = torch.exp(-((mni[0] / width) ** 2)) * torch.sigmoid((mni[2] - 0.5 * mni[1] - 20) / 8)
    roof = torch.exp(-(((mni[2] - tentorium(mni)) / width) ** 2)) * torch.sigmoid((-35 - mni[1]) / 4)
    whim = (fields.smooth("sinus", 20, step=COARSE) + recipe["sinus"]).clamp_(0, 1)
    sinus = upsample(torch.maximum(midline, roof).mul_(whim), csf.shape)
    surface = (anatomy.inside * -4).add_(3).clamp_(0, 1)  # 1 outside the brain's surface, 0 from a millimetre inside
    return torch.maximum(tubes, sinus.mul_(1.6).mul_(surface).clamp_(0, 1))


def _remnants(recipe: Mapping[str, Any], anatomy: Anatomy) -> Tensor:
    patches = anatomy.fields.smooth("remnants", 16, step=COARSE).add_(recipe["remnants"]).mul_(2).clamp_(0, 1)
    return (anatomy.inside * -5).add_(2.8).clamp_(0, 1).mul_(upsample(patches, anatomy.inside.shape))


def _pulsation(recipe: Mapping[str, Any], anatomy: Anatomy) -> Tensor:
    x, y, z = anatomy.mni
    middle = torch.sigmoid((45 - x.abs()) / 4) * torch.sigmoid((20 - z) / 6) * torch.sigmoid((y + 70) / 6)
    flow = (anatomy.fields.smooth("pulsation", 12, step=COARSE) + recipe["pulsation"]).clamp_(0, 1)
    return upsample(middle * flow, anatomy.inside.shape).mul_(anatomy.tissue[0])
