"""The four images: what each setting of a recipe does to them, on one small brain."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from emcad_lib.data.anatomy import Anatomy, build_anatomy
from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.contrast import render
from emcad_lib.data.harmless import Harmless
from emcad_lib.data.recipe import draw_recipe
from emcad_lib.data.tumour import ENHANCING, NECROSIS, OEDEMA, Growth, grow

FLAIR, T1, T1CE, T2 = range(4)


def calm(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without anything that varies inside a tissue."""
    recipe = copy.deepcopy(recipe)
    for settings in recipe["images"].values():
        settings |= {"texture": 0.0, "noise": 0.0, "bias": 0.0, "regional_z": 0.0, "cortex_z": 0.0, "cut": None}
        settings |= {"lesion_z": 0.0, "vessel_z": 0.0, "pulsation_z": 0.0, "hindbrain_z": 0.0, "remnant_z": 0.0}
        settings |= {"rough": [0.0] * 4, "anatomy_kept": 0.0, "brightness": 1000.0, "shift_mm": [0.0] * 3}
        settings |= {"blur_mm": [0.3] * 3, "tissue": [0.4, 1.0, 0.8]}
        settings["tumour_z"] = [4.0, 3.0, 5.0, -2.0]
    recipe["tumour"] |= {"fading": 0.0, "cortex_spared": 0.0, "cyst": 0.0}
    return recipe


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return calm(draw_recipe(0, 0))


@pytest.fixture(scope="module")
def anatomy(recipe: dict[str, Any]) -> Anatomy:
    return build_anatomy(recipe["anatomy"], recipe["fields_seed"])


@pytest.fixture(scope="module")
def growth(recipe: dict[str, Any], anatomy: Anatomy) -> Growth:
    found = grow(recipe["tumour"], anatomy)
    assert found
    return found


@pytest.fixture(scope="module")
def plain(recipe: dict[str, Any], anatomy: Anatomy, growth: Growth) -> Tensor:
    return render(recipe, anatomy, growth)


def changed(recipe: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The recipe with these settings of its FLAIR image."""
    recipe = copy.deepcopy(recipe)
    recipe["images"]["flair"] |= settings
    return recipe


def test_images_are_positive_in_the_brain_and_0_around_it(plain: Tensor, anatomy: Anatomy) -> None:
    assert plain.dtype == torch.int16
    for image in plain:
        assert torch.equal(image > 0, anatomy.brain)


def test_tissues_have_the_ratios_of_the_recipe(plain: Tensor, anatomy: Anatomy, growth: Growth) -> None:
    healthy = (growth.labels == 0) & anatomy.brain
    csf, grey, white = (float(plain[FLAIR][healthy & (share > 0.97)].float().median()) for share in anatomy.tissue)

    assert csf / white == pytest.approx(0.5, rel=0.1)
    assert grey / white == pytest.approx(1.25, rel=0.05)


def test_the_parts_of_the_tumour_are_as_bright_as_the_recipe_says(
    plain: Tensor, anatomy: Anatomy, growth: Growth
) -> None:
    image = plain[FLAIR].float()
    healthy = image[(growth.labels == 0) & anatomy.brain]
    z = (image - healthy.mean()) / healthy.std()

    for label, expected in ((NECROSIS, 3.0), (ENHANCING, 5.0), (OEDEMA, 4.0)):
        assert float(z[growth.labels == label].median()) == pytest.approx(expected, abs=0.7)


def test_oedema_fades_outwards_where_the_recipe_says(recipe: dict[str, Any], anatomy: Anatomy, growth: Growth) -> None:
    fading = copy.deepcopy(recipe)
    fading["tumour"]["fading"] = 0.8

    image = render(fading, anatomy, growth)[FLAIR][growth.box].float()

    oedema = growth.labels[growth.box] == OEDEMA
    near, far = image[oedema & (growth.spread < 0.3)].median(), image[oedema & (growth.spread > 0.8)].median()
    assert float(near) > 1.2 * float(far)


def test_a_cyst_takes_the_middle_of_the_core(
    recipe: dict[str, Any], anatomy: Anatomy, growth: Growth, plain: Tensor
) -> None:
    cystic = copy.deepcopy(recipe)
    cystic["tumour"]["cyst"] = 0.8

    change = (plain[FLAIR] - render(cystic, anatomy, growth)[FLAIR])[growth.box].float()

    core = growth.labels[growth.box] == NECROSIS
    assert float(change[core & (growth.depth < 0.5)].median()) > 100
    assert float(change[growth.labels[growth.box] == OEDEMA].abs().median()) < 5


@pytest.mark.parametrize(
    ("settings", "where"),
    [({"lesion_z": 3.0}, "lesions"), ({"vessel_z": 8.0}, "vessels"), ({"pulsation_z": 4.0}, "pulsation")],
)
def test_harmless_spots_are_bright_where_they_are_and_nowhere_else(
    recipe: dict[str, Any], anatomy: Anatomy, growth: Growth, plain: Tensor, settings: dict[str, float], where: str
) -> None:
    spots = getattr(Harmless({**recipe["harmless"], "lesions": 0.5, "single_lesions": 1.5, "pulsation": 0.5},
                             anatomy, growth), where)  # fmt: skip
    loud = changed(recipe, **settings)
    loud["harmless"] |= {"lesions": 0.5, "single_lesions": 1.5, "pulsation": 0.5}

    change = (render(loud, anatomy, growth)[FLAIR] - plain[FLAIR]).float()

    assert float(spots.max()) > 0.5
    assert float(change[anatomy.brain & (spots > 0.5)].median()) > 100
    assert float(change[spots == 0].abs().median()) == 0
    assert float(spots[growth.labels > 0].max()) == 0  # never in the tumour, where truth would call them tumour


def test_remnants_lie_on_the_surface(anatomy: Anatomy, recipe: dict[str, Any]) -> None:
    remnants = Harmless(recipe["harmless"], anatomy, None).remnants

    assert float(remnants.max()) > 0.5
    assert float(remnants[anatomy.inside > 0.6].max()) == 0


def test_a_cut_hides_one_side_of_a_plane_in_one_image(
    recipe: dict[str, Any], anatomy: Anatomy, growth: Growth, plain: Tensor
) -> None:
    images = render(changed(recipe, cut={"slope": [0, 1, 0], "at": 0.5}), anatomy, growth)

    middle = images.shape[2] // 2
    assert int(images[FLAIR][:, int(images.shape[2] * 0.76) :].max()) == 0  # 0.5 of the way from the middle to the end
    assert torch.equal(images[FLAIR][:, :middle], plain[FLAIR][:, :middle])
    assert torch.equal(images[T2], plain[T2])


def test_regional_brightness_is_the_same_on_the_left_and_on_the_right(
    recipe: dict[str, Any], anatomy: Anatomy, growth: Growth, plain: Tensor
) -> None:
    straight = copy.deepcopy(recipe)
    straight["anatomy"] |= {"rotation": [0, 0, 0], "shift_mm": [0, 0, 0], "stretch": [0, 0, 0], "bend_mm": 0.0}
    brain = build_anatomy(straight["anatomy"] | {"wrinkle_mm": 0.0}, seed=1)
    loud = changed(straight, regional_z=1.0)

    change = (render(loud, brain, None)[FLAIR] - render(straight, brain, None)[FLAIR]).float()

    both = brain.brain & brain.brain.flip(0)
    assert float(change[brain.brain].std()) > 50
    pair = torch.stack([change[both], change.flip(0)[both]])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.95


def test_every_modality_has_its_image(plain: Tensor) -> None:
    assert len(plain) == len(MODALITIES)
