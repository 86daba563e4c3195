"""The phantom without one of its ingredients, to find out what each is good for.

Each function changes a patient's recipe and nothing else: what it doesn't name stays as it was drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from emcad_lib.data.recipe import TISSUE, TUMOUR_Z, draw_recipe


def _brains(recipe: dict[str, Any]) -> None:
    recipe["anatomy"] = draw_recipe(recipe["seed"], 0)["anatomy"]


def _harmless(recipe: dict[str, Any]) -> None:
    recipe["harmless"]["remnants"] = -10.0  # no patch of a smooth field reaches above that
    for settings in recipe["images"].values():
        settings["lesion_z"] = settings["vessel_z"] = settings["pulsation_z"] = 0.0


def _regions(recipe: dict[str, Any]) -> None:
    for settings in recipe["images"].values():
        settings["hindbrain_z"] = settings["regional_z"] = settings["cortex_z"] = 0.0


def _scanner(recipe: dict[str, Any]) -> None:
    for settings in recipe["images"].values():
        settings["noise"] = settings["bias"] = settings["texture"] = 0.0
        settings["blur_mm"], settings["shift_mm"], settings["cut"] = [0.45] * 3, [0.0] * 3, None


def _softness(recipe: dict[str, Any]) -> None:
    recipe["tumour"]["fading"] = recipe["tumour"]["cortex_spared"] = recipe["tumour"]["cyst"] = 0.0
    for settings in recipe["images"].values():
        settings["anatomy_kept"], settings["rough"] = 0.0, [0.0] * 4


def _shapes(recipe: dict[str, Any]) -> None:
    tumour = recipe["tumour"]
    tumour["foci"] = [{**focus, "stretch": [0.0] * 3} for focus in tumour["foci"][:1]]
    tumour["lumps"] = tumour["push"] = tumour["infiltration"] = tumour["oedema_edge_mm"] = 0.0


def _contrasts(recipe: dict[str, Any]) -> None:
    for name, settings in recipe["images"].items():
        settings["tissue"] = list(TISSUE[name])
        settings["tumour_z"] = [mean for mean, _ in TUMOUR_Z[name]]


# What can be left out -> what the patients are like without it.
INGREDIENTS = {
    "brains": "every patient has the brain of the first one",
    "harmless": "no white-matter lesions, no vessels, no remnants of the skull stripping, no pulsation",
    "regions": "no region of the brain is brighter than another",
    "scanner": "no noise, no fine texture, no shading, no thick slices, no shift, nothing cut off",
    "softness": "the tumour is even, without cysts, doesn't fade, doesn't spare the cortex and hides what is under it",
    "shapes": "one round focus that pushes nothing aside, and oedema that spreads in grey matter as in white",
    "contrasts": "tissue and tumour have the same brightness in all patients",
}

_CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "brains": _brains,
    "harmless": _harmless,
    "regions": _regions,
    "scanner": _scanner,
    "softness": _softness,
    "shapes": _shapes,
    "contrasts": _contrasts,
}


def without(recipe: Mapping[str, Any], ingredient: str) -> dict[str, Any]:
    """A copy of ``recipe`` without ``ingredient``, one of INGREDIENTS, which is noted in it as "without"."""
    if ingredient not in INGREDIENTS:
        raise ValueError(f"There is no ingredient {ingredient!r}. Choose from: {', '.join(INGREDIENTS)}.")
    changed = copy.deepcopy(dict(recipe))
    _CHANGES[ingredient](changed)
    return changed | {"without": ingredient}
