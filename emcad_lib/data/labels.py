"""Which voxel value means which tissue, in every year's BraTS, and the three nested regions that the course works with.

BraTS numbers three tissues, and has changed the numbers twice. Everything after reading works on *regions* instead, as
the BraTS rankings do: the whole tumour holds the tumour core, which holds the enhancing tumour. Three bits of one byte
per voxel say which of them it belongs to.

Source: Menze et al. 2015 (the regions); Antonelli et al. 2022 (the Decathlon's numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emcad_lib.files import CourseError

REGIONS = ("whole", "core", "enhancing")  # bit 0, bit 1 and bit 2 of a voxel's byte

_OEDEMA, _NECROSIS, _ENHANCING = 0b001, 0b011, 0b111  # each tissue with every region that it belongs to


@dataclass(frozen=True)
class LabelConvention:
    """The voxel values of one family of segmentations; 0 is always "no tumour".

    Attributes:
        name: as it stands in messages.
        necrosis: core that doesn't take up contrast agent: necrotic, and non-enhancing tumour.
        oedema: swelling round the core.
        enhancing: core that takes up contrast agent.
    """

    name: str
    necrosis: int
    oedema: int
    enhancing: int

    @property
    def allowed(self) -> tuple[int, ...]:
        """Every value that a segmentation may hold, ascending."""
        return (0, *sorted((self.necrosis, self.oedema, self.enhancing)))

    def regions(self, labels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Region bits of ``labels``, in the same shape: bit 0 whole tumour, bit 1 core, bit 2 enhancing.

        Any dtype will do: BraTS stores segmentations as uint8, int16 and float32.

        Raises:
            CourseError: for any value that this convention doesn't know, NaN included.
        """
        labels = np.asarray(labels)
        bits = np.zeros_like(labels, dtype=np.uint8)
        known = labels == 0
        for value, tissue in ((self.oedema, _OEDEMA), (self.necrosis, _NECROSIS), (self.enhancing, _ENHANCING)):
            here = labels == value
            bits[here] = tissue
            known |= here
        if not known.all():
            unknown = np.unique(labels[~known])
            shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise CourseError(
                f"unknown label values: found {shown}, but the labels of {self.name} are "
                f"{', '.join(str(value) for value in self.allowed)}"
            )
        return bits

    def encode(self, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels of this convention for region ``bits`` of any shape: the way back from :meth:`regions`.

        The innermost region decides, so bits that aren't nested have a label too. Where only the whole tumour is
        known, as with a model of one region, every tumour voxel gets the label of oedema.

        Raises:
            CourseError: for a value that isn't made of the three bits.
        """
        bits = np.asarray(bits)
        if bits.size and (bits.min() < 0 or bits.max() > _ENHANCING):
            raise CourseError(f"region bits lie between 0 and 7, but found {bits.min()} to {bits.max()}")
        inner = (self.oedema, self.necrosis, self.necrosis) + (self.enhancing,) * 4  # for the bits 1 to 7
        return np.array((0, *inner), dtype=np.uint8)[bits]


BRATS_2020 = LabelConvention("BraTS 2018 to 2021", necrosis=1, oedema=2, enhancing=4)
BRATS_2023 = LabelConvention("BraTS 2023 and later", necrosis=1, oedema=2, enhancing=3)
# The Decathlon calls its label 2 "non-enhancing tumour": like necrosis it's the part of the core that stays dark.
DECATHLON = LabelConvention("the Medical Segmentation Decathlon", necrosis=2, oedema=1, enhancing=3)


def region_mask(bits: NDArray[np.uint8], region: str) -> NDArray[np.bool_]:
    """Where ``bits`` (any shape) belong to ``region``, one of :data:`REGIONS`.

    Raises:
        CourseError: for another name.
    """
    if region not in REGIONS:
        raise CourseError(f"There is no region {region!r}. Choose one of: {', '.join(REGIONS)}.")
    return (np.asarray(bits) >> REGIONS.index(region) & 1).astype(bool)
