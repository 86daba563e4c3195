"""The recipe: what many of them have in common, and that all that patients vary in occurs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.recipe import draw_recipe
from emcad_lib.data.template import template

RECIPES = [draw_recipe(0, index) for index in range(400)]


def test_a_recipe_is_plain_json() -> None:
    assert json.loads(json.dumps(RECIPES[0])) == RECIPES[0]


def test_a_recipe_depends_on_seed_and_index_only() -> None:
    assert draw_recipe(0, 7) == RECIPES[7]
    assert draw_recipe(1, 7) != RECIPES[7]


def test_half_of_the_tumours_are_larger_than_the_real_median_and_few_are_huge_or_tiny() -> None:
    volumes = np.array([recipe["tumour"]["whole_cm3"] for recipe in RECIPES])

    assert np.median(volumes) == pytest.approx(96, rel=0.15)
    assert volumes.min() < 25
    assert volumes.max() > 200


@pytest.mark.parametrize(
    ("what", "holds", "at_least", "at_most"),
    [
        ("no enhancement", lambda recipe: recipe["tumour"]["enhancing_share"] == 0, 0.08, 0.25),
        ("several foci", lambda recipe: len(recipe["tumour"]["foci"]) > 1, 0.2, 0.4),
        ("a cyst", lambda recipe: recipe["tumour"]["cyst"] > 0, 0.25, 0.55),
        ("a cut image", lambda recipe: any(recipe["images"][name]["cut"] for name in MODALITIES), 0.1, 0.4),
        ("thick FLAIR slices", lambda recipe: max(recipe["images"]["flair"]["blur_mm"]) > 0.85, 0.8, 0.97),
    ],
)  # fmt: skip
def test_what_patients_vary_in_occurs_and_is_not_the_rule(what, holds, at_least, at_most) -> None:
    share = np.mean([holds(recipe) for recipe in RECIPES])

    assert at_least <= share <= at_most, f"{what}: {share:.2f}"


def test_tumours_of_cerebellum_and_brain_stem_occur_but_less_often_than_there_is_white_matter() -> None:
    centres = np.array([recipe["tumour"]["foci"][0]["centre_mni"] for recipe in RECIPES])
    atlas = template()
    white = np.array([atlas.mni(place) for place in np.argwhere(atlas.maps[2].numpy() > 0.6)[::50]])

    def below(places: np.ndarray) -> float:
        return float(((places[:, 2] < -18) & (places[:, 1] < -20)).mean())

    assert 0 < below(centres) < below(white) / 2
