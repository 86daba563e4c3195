"""How much work to do: a quick check, an afternoon on a laptop, or the paper's experiment on a GPU.

The one place where the sizes of the course's experiments are written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from emcad_lib.files import CourseError


@dataclass(frozen=True)
class Profile:
    """The sizes of one way to go through the course."""

    name: str
    patients: int  # phantom patients to make, and the most patients to use of a reader's own folder
    image_size: int  # pixels along each side of a training slice
    epochs: int  # of one training run
    slices_per_epoch: int  # training slices drawn in an epoch; 0: all of them
    learning_rate: float
    pretrained: bool  # start the encoder from ImageNet weights, which need a download
    disk_gb: float  # for patients that are made, the cache, runs and figures; a reader's own BraTS comes on top
    encoder: str = "pvt_v2_b0"
    batch_sizes: tuple[int, ...] = (6, 16, 25)
    seeds: tuple[int, ...] = (0,)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("ci", 5, image_size=64, epochs=2, slices_per_epoch=48, learning_rate=1e-3, pretrained=False,
                disk_gb=0.2),
        Profile("quick", 20, image_size=96, epochs=8, slices_per_epoch=400, learning_rate=1e-3, pretrained=False,
                disk_gb=1),
        Profile("paper", 369, image_size=224, epochs=200, slices_per_epoch=0, learning_rate=1e-4, pretrained=True,
                disk_gb=12, seeds=(0, 1, 2)),
    )
}  # fmt: skip


def get_profile(name: str = "") -> Profile:
    """The profile of that name. An empty name means the environment's EMCAD_PROFILE, else ``quick``.

    Raises:
        CourseError: for any other name.
    """
    name = name or os.environ.get("EMCAD_PROFILE", "") or "quick"
    if name not in PROFILES:
        raise CourseError(f"There is no profile {name!r}. Choose one of: {', '.join(PROFILES)}.")
    return PROFILES[name]
