"""Phantoms without one ingredient: that one is gone, and nothing else has changed."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from emcad_lib.data.leave_out import INGREDIENTS, without
from emcad_lib.data.phantom import build_phantom, is_finished, make_phantoms
from emcad_lib.data.recipe import draw_recipe
from emcad_lib.files import CourseError, read_json

RECIPE = draw_recipe(0, 3)


def flat(value, path: str = "") -> dict[str, object]:
    """Nested dictionaries and lists as one dictionary: "images/flair/noise" -> number."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, item in items for key, leaf in flat(item, f"{path}/{name}").items()}
    return {path: value}


@pytest.mark.parametrize(
    ("ingredient", "touched"),
    [
        ("brains", ("/anatomy",)),
        ("harmless", ("/harmless/remnants", "lesion_z", "vessel_z", "pulsation_z")),
        ("regions", ("hindbrain_z", "regional_z", "cortex_z")),
        ("scanner", ("noise", "bias", "texture", "/blur_mm", "/shift_mm", "/cut")),
        ("softness", ("fading", "cortex_spared", "cyst", "anatomy_kept", "/rough")),
        ("shapes", ("/foci", "lumps", "push", "infiltration", "oedema_edge_mm")),
        ("contrasts", ("/tissue", "/tumour_z")),
    ],
)  # fmt: skip
def test_only_what_belongs_to_the_ingredient_changes(ingredient: str, touched: tuple[str, ...]) -> None:
    before, after = flat(RECIPE), flat(without(RECIPE, ingredient))
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} - {"/without"}

    assert all(any(part in path for part in touched) for path in changed), changed
    for part in touched:
        assert any(part in path for path in changed) or part in ("/cut", "cyst"), part  # not every patient has these


def test_the_recipe_itself_stays() -> None:
    before = copy.deepcopy(RECIPE)
    for ingredient in INGREDIENTS:
        without(RECIPE, ingredient)

    assert before == RECIPE


def test_without_varied_brains_two_patients_have_the_same_anatomy() -> None:
    one, other = (without(draw_recipe(5, index), "brains") for index in (1, 2))

    assert one["anatomy"] == other["anatomy"] == draw_recipe(5, 0)["anatomy"]
    assert one["tumour"] != other["tumour"]


def test_without_harmless_spots_the_surface_is_not_patched() -> None:
    plain = without(RECIPE, "harmless")
    patched = copy.deepcopy(plain)
    patched["harmless"]["remnants"] = 1.5

    difference = build_phantom(plain).images[1] != build_phantom(patched).images[1]

    assert 1_000 < difference.sum() < 400_000  # on the surface, and not all over the brain


def test_without_scanner_effects_neighbours_are_more_alike() -> None:
    def roughness(recipe) -> float:
        image = build_phantom(recipe).images[0]
        inside = (image[:-1] > 0) & (image[1:] > 0)
        return float(np.abs(np.diff(image, axis=0))[inside].mean() / image[image > 0].std())

    assert roughness(without(RECIPE, "scanner")) < 0.7 * roughness(RECIPE)


def test_patients_made_without_an_ingredient_say_so_and_are_not_taken_for_complete_ones(tmp_path) -> None:
    (folder,) = make_phantoms(tmp_path, 1, seed=4, leave_out="regions")

    assert read_json(folder / "Phantom_000_recipe.json")["without"] == "regions"
    assert is_finished(folder, 4, 0, "regions")
    assert not is_finished(folder, 4, 0)
    assert not is_finished(folder, 4, 0, "scanner")


def test_an_unknown_ingredient_is_named_with_those_there_are(tmp_path) -> None:
    with pytest.raises(CourseError, match="salt.*brains, harmless"):
        make_phantoms(tmp_path, 1, leave_out="salt")
    with pytest.raises(ValueError, match="salt"):
        without(RECIPE, "salt")
    assert not list(tmp_path.iterdir())
