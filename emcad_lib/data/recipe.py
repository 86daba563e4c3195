"""Every random choice of a phantom patient, as plain numbers.

The spreads follow what 58 real patients show (volumes, shares of the parts, brightness of each part in standard
deviations of the brain), and go beyond it where a wider range teaches a network more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.template import template

# What 58 real patients show at these quantiles: volume of the whole tumour, share of it that is core.
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
WHOLE_CM3 = (4, 34, 55, 96, 153, 192, 320)
CORE_SHARE = (0.05, 0.12, 0.20, 0.43, 0.51, 0.65, 0.9)

# Brightness of CSF, grey and white matter; only their ratios matter.
TISSUE = {"flair": (0.45, 1.0, 0.82), "t1": (0.4, 0.83, 1.0), "t1ce": (0.4, 0.8, 1.0), "t2": (3.6, 1.0, 0.74)}

# Noise in the finished image, in standard deviations of the healthy brain: least and most.
NOISE = {"flair": (0.35, 0.85), "t1": (0.17, 0.43), "t1ce": (0.3, 0.66), "t2": (0.1, 0.55)}

# Brightness of oedema, necrosis, enhancing tumour and cysts in standard deviations of the healthy brain: mean, spread.
TUMOUR_Z = {
    "flair": ((6.0, 1.5), (3.4, 1.4), (3.2, 1.2), (0.3, 1.8)),
    "t1": ((-0.1, 0.6), (-0.45, 0.7), (0.0, 0.6), (-2.0, 0.8)),
    "t1ce": ((-0.6, 0.7), (-0.45, 0.7), (3.0, 0.8), (-1.8, 0.7)),
    "t2": ((2.5, 1.2), (2.0, 1.1), (1.2, 0.8), (3.5, 1.0)),
}

# The same for patches of the brain's wrapping that the skull stripping has left.
REMNANT_Z = {"flair": (0.0, 1.5), "t1": (-1.8, 1.4), "t1ce": (2.0, 2.2), "t2": (-3.5, 4.0)}


def draw_recipe(seed: int, index: int) -> dict[str, Any]:
    """The recipe of patient ``index`` of the series ``seed``: nested dictionaries of numbers that JSON can hold.

    It depends on nothing else: not on how many patients are made, nor by how many workers.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    recipe = {
        "seed": seed,
        "index": index,
        "fields_seed": int(random.integers(2**32)),
        "anatomy": _anatomy(random),
        "tumour": _tumour(random),
        "harmless": _harmless(random),
        "images": _images(random),
    }
    return _plain(recipe)


def _plain(value: Any) -> Any:
    """``value`` with every number as Python's own, and short enough to read."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.4g}")
    if isinstance(value, np.integer):
        return int(value)
    return value


def _anatomy(random: np.random.Generator) -> dict[str, Any]:
    return {
        "shape_seed": int(random.integers(2**32)),
        "brain_cm3": np.clip(random.normal(1445, 140), 1100, 1850),
        "stretch": random.normal(0, 0.03, 3),
        "rotation": random.normal(0, 4, 3),
        "shift_mm": random.normal(0, 1.5, 3),
        "bend_mm": random.uniform(1.5, 4),
        "wrinkle_mm": random.uniform(0.7, 2.2),
        "fold_mm": random.uniform(4.5, 6.5),
        "fold_reach": random.uniform(0.3, 0.9),
        "sharpness": random.uniform(4, 8),
        "strip_mm": random.normal(0.2, 0.8),
        "strip_error_mm": random.uniform(0.2, 1.2),
        "atrophy": random.normal(-0.4, 0.8),
        "ventricles": random.uniform(0, 0.33),
    }


def _tumour(random: np.random.Generator) -> dict[str, Any]:
    enhances = random.random() < 0.85
    core = np.interp(random.random(), QUANTILES, CORE_SHARE) if enhances else random.uniform(0.2, 0.85)
    foci = 1 if random.random() < 0.78 else int(random.integers(2, 4))
    return {
        "whole_cm3": np.exp(np.interp(random.random(), QUANTILES, np.log(WHOLE_CM3))),
        "core_share": core,
        "enhancing_share": core * random.beta(1.8, 1.8) if enhances else 0.0,
        "ring": random.uniform(0.15, 1.0),
        "lumps": random.uniform(0.12, 0.3),
        "infiltration": random.uniform(0.5, 1.8),
        "oedema_edge_mm": random.uniform(0.5, 3),
        "fading": random.uniform(0, 0.7),
        "cortex_spared": random.uniform(0, 0.7),
        "cyst": random.uniform(0.3, 1) if random.random() < 0.4 else 0.0,
        "push": random.uniform(0, 0.5),
        "foci": [_focus(random, size=1.0 if number == 0 else random.uniform(0.4, 0.9)) for number in range(foci)],
    }


def _focus(random: np.random.Generator, size: float) -> dict[str, Any]:
    """A place in white matter, mostly of the cerebrum, and an ellipsoid's shape."""
    atlas = template()
    white = np.argwhere(atlas.maps[2].numpy() > 0.6)
    while True:
        centre = atlas.mni(random.choice(white) + random.uniform(-0.5, 0.5, 3))
        below_the_cerebrum = centre[2] < -18 and centre[1] < -20
        if not below_the_cerebrum or random.random() < 0.15:
            break
    return {
        "centre_mni": centre,
        "size": size,
        "stretch": random.normal(0, 0.2, 3),
        "rotation": random.uniform(-90, 90, 3),
    }


def _harmless(random: np.random.Generator) -> dict[str, Any]:
    return {
        "lesions": random.uniform(-0.8, 0.8),
        "single_lesions": random.uniform(1.2, 3.5),  # where the field that spots come from is above this
        "lesion_mm": random.uniform(4.5, 9),
        "vessels": random.uniform(0.5, 5),
        "sinus": random.uniform(-0.3, 1.2),
        "sinus_mm": random.uniform(2.5, 6),
        "pulsation": random.uniform(-1.5, 0.5),
        "remnants": random.uniform(-0.6, 1.5),
    }


def _images(random: np.random.Generator) -> dict[str, dict[str, Any]]:
    grade = random.normal(0, 1, 4)  # bright oedema is bright in FLAIR and T2 alike, and so on
    share = 0.6
    images: dict[str, dict[str, Any]] = {}
    for name in MODALITIES:
        own = random.normal(0, 1, 4)
        tissue = np.array(TISSUE[name]) ** random.uniform(0.6, 1.1) * np.exp(random.normal(0, (0.25, 0.06, 0.06), 3))
        if name == "t1ce":  # the same sequence as T1, a little later
            tissue = np.array(images["t1"]["tissue"]) * np.exp(random.normal(0, 0.03, 3))
        mean, spread = np.array(TUMOUR_Z[name]).T
        images[name] = {
            "tissue": tissue,
            "tumour_z": mean + spread * (share * grade + (1 - share**2) ** 0.5 * own),
            "rough": random.uniform((0.1, 0.2, 0.2, 0.1), (0.5, 1.0, 0.7, 0.3)),
            "anatomy_kept": random.uniform(0.1, 0.6),
            "lesion_z": random.uniform(0.5, 3) * {"flair": 1, "t1": -0.3, "t1ce": -0.3, "t2": 0.6}[name],
            "vessel_z": random.uniform(3, 9) if name == "t1ce" else 0.0,
            "remnant_z": random.normal(*REMNANT_Z[name]),
            "pulsation_z": random.uniform(0, 4) if name == "flair" else 0.0,
            "hindbrain_z": random.normal(0, 0.4),
            "regional_z": random.uniform(0, 0.35),
            "cortex_z": random.uniform(0.1, {"flair": 0.9}.get(name, 0.5)),
            "texture": random.uniform(0.05, 0.35),
            "bias": random.uniform(0.01, 0.11),
            "noise": random.uniform(*NOISE[name]),
            "blur_mm": _blur(random, thick=random.random() < (0.9 if name == "flair" else 0.3)),
            "shift_mm": random.normal(0, 0.4, 3),
            "cut": _cut(random) if random.random() < 0.06 else None,
            "brightness": np.exp(random.uniform(np.log(300), np.log(1500))),
        }
    return images


def _blur(random: np.random.Generator, thick: bool) -> np.ndarray:
    """Blur along L, P and S in mm. Thick slices are blurred across, and most lie across the body."""
    width = random.uniform(0.3, 0.6, 3)
    if thick:
        width[random.choice(3, p=(0.06, 0.08, 0.86))] = random.uniform(0.9, 1.9)
    return width


def _cut(random: np.random.Generator) -> dict[str, Any]:
    """A plane at which the field of view ends: above, below, in front of or behind the middle of the brain."""
    slope = random.normal(0, 0.12, 3)
    slope[random.choice([1, 2])] = random.choice([-1, 1])
    return {"slope": slope, "at": random.uniform(0.35, 0.85)}
