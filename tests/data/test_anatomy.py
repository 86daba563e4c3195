"""The healthy brain: smooth fields, warps, folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from emcad_lib.data.anatomy import GRID, Anatomy, build_anatomy, rotation
from emcad_lib.data.fields import COARSE, Fields, blur, upsample, white_noise_after
from emcad_lib.data.recipe import draw_recipe
from emcad_lib.data.template import template

# A brain as it lies in the template: nothing turned, bent or worn away.
PLAIN = {
    "shape_seed": 1, "brain_cm3": 1886.5, "stretch": [0, 0, 0], "rotation": [0, 0, 0], "shift_mm": [0, 0, 0],
    "bend_mm": 0.0, "wrinkle_mm": 0.0, "fold_mm": 5.0, "fold_reach": 0.5, "sharpness": 6.0, "strip_mm": 0.0,
    "strip_error_mm": 0.0, "atrophy": 0.0, "ventricles": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> Anatomy:
    return build_anatomy(PLAIN, seed=1)


def test_a_field_depends_on_its_name_and_the_seed_but_not_on_what_was_asked_for_before() -> None:
    fields = Fields(7, (20, 24, 16))
    fields.smooth("other", 5)
    fields.noise("more")

    again = fields.smooth("texture", 5)

    assert torch.equal(again, Fields(7, (20, 24, 16)).smooth("texture", 5))
    assert not torch.equal(again, Fields(8, (20, 24, 16)).smooth("texture", 5))
    assert not torch.equal(again, fields.smooth("grain", 5))


def test_a_smooth_field_has_mean_0_and_variance_1_and_hardly_changes_from_voxel_to_voxel() -> None:
    field = Fields(0, (120, 120, 120)).smooth("texture", 6).numpy()

    assert field.shape == (120, 120, 120)
    assert abs(field.mean()) < 0.05
    assert field.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1] > 0.97


def test_a_field_at_every_fourth_voxel_is_the_full_field_there() -> None:
    fields = Fields(0, (33, 41, 29))

    coarse = fields.smooth("bend", 12, step=COARSE)

    torch.testing.assert_close(coarse, fields.smooth("bend", 12)[::4, ::4, ::4])


def test_a_smooth_field_is_the_same_in_any_box() -> None:
    box = (slice(4, 29), slice(8, 33), slice(0, 21))

    field = Fields(0, (33, 41, 29), box).smooth("bend", 12, step=COARSE)

    torch.testing.assert_close(field, Fields(0, (33, 41, 29)).smooth("bend", 12)[box][::4, ::4, ::4])


def test_upsampling_goes_straight_from_point_to_point() -> None:
    coarse = torch.tensor([0.0, 8.0]).view(2, 1, 1)

    assert upsample(coarse, (5, 1, 1)).flatten().tolist() == [0, 2, 4, 6, 8]


def test_blur_is_a_gaussian_whose_edges_go_on() -> None:
    image = torch.zeros(31, 9, 12)
    image[15, 4:, 6:] = 1

    blurred = blur(image, (2.0, 0.7, 1.5))

    expected = ndimage.gaussian_filter(image.numpy(), (2.0, 0.7, 1.5), mode="nearest", truncate=5)
    np.testing.assert_allclose(blurred.numpy(), expected, atol=2e-4)


def test_a_shift_moves_the_image_towards_lower_indices() -> None:
    image = torch.zeros(20, 5, 5)
    image[10] = 1

    assert int(blur(image, (0.5, 0.5, 0.5), shift=(3, 0, 0)).sum((1, 2)).argmax()) == 7


def test_white_noise_after_a_blur_keeps_the_share_that_is_said() -> None:
    noise = Fields(0, (80, 80, 80)).noise("noise")

    assert float(blur(noise, (0.6, 0.5, 1.4)).std()) == pytest.approx(white_noise_after((0.6, 0.5, 1.4)), rel=0.03)


def test_known_places_of_the_brain_hold_the_tissue_they_should(plain: Anatomy) -> None:
    atlas = template()

    def at(*mni: float) -> list[float]:
        voxel = np.rint(atlas.voxel(np.array(mni))).astype(int)
        away = (plain.coordinates - torch.from_numpy(voxel).view(3, 1, 1, 1)).norm(dim=0)
        i, j, k = (COARSE * int(index) for index in np.unravel_index(int(away.argmin()), away.shape))
        return plain.tissue[:, i, j, k].tolist()

    csf, grey, white = range(3)
    assert int(np.argmax(at(-26, -20, 34))) == white  # centrum semiovale
    assert int(np.argmax(at(28, 0, 0))) == grey  # putamen
    assert int(np.argmax(at(0, -46, -32))) in (csf, grey)  # fourth ventricle and what surrounds it


def test_the_plain_brain_has_the_templates_volume_and_lies_whole_in_the_grid(plain: Anatomy) -> None:
    assert float(plain.brain.sum()) / 1000 == pytest.approx(template().volume, rel=0.02)
    for part, length in zip(plain.box, GRID, strict=True):
        assert 0 <= part.start < part.stop <= length
        assert (part.stop - part.start) % COARSE == 1


def test_a_recipes_brain_has_about_the_volume_it_asks_for_without_holes_or_islands() -> None:
    recipe = {**draw_recipe(0, 0)["anatomy"], "brain_cm3": 1300.0, "strip_mm": 0.0, "strip_error_mm": 1.2}

    brain = build_anatomy(recipe, seed=3).brain.numpy()

    assert brain.sum() / 1000 == pytest.approx(1300, rel=0.06)
    pieces, _ = ndimage.label(brain)
    assert np.bincount(pieces.ravel())[1:].max() > 0.999 * brain.sum()
    assert ndimage.binary_fill_holes(brain).sum() < 1.001 * brain.sum()


@pytest.mark.parametrize("index", [1, 13, 25])
def test_no_brain_is_cut_off_by_its_box(index: int) -> None:
    recipe = draw_recipe(0, index)["anatomy"] | {"bend_mm": 4.0}

    anatomy = build_anatomy(recipe, seed=0)

    for axis, (part, length) in enumerate(zip(anatomy.box, GRID, strict=True)):
        first, last = anatomy.brain.select(axis, 0).sum(), anatomy.brain.select(axis, -1).sum()
        assert first == 0 or part.start == 0
        assert last == 0 or part.stop > length - COARSE


def test_tissue_shares_sum_to_one_and_stay_between_0_and_1() -> None:
    tissue = build_anatomy(
        {**PLAIN, "sharpness": 2.5, "atrophy": 1.5, "ventricles": 0.38, "bend_mm": 4.0}, seed=2
    ).tissue

    torch.testing.assert_close(tissue.sum(0), torch.ones(tissue.shape[1:]))
    assert float(tissue.min()) >= -1e-5
    assert float(tissue.max()) <= 1 + 1e-5


def test_ventricles_and_atrophy_add_csf(plain: Anatomy) -> None:
    csf = float(plain.tissue[0][plain.brain].sum())

    for name, value in (("ventricles", 0.38), ("atrophy", 0.7)):
        more = build_anatomy({**PLAIN, name: value}, seed=1)
        assert float(more.tissue[0][more.brain].sum()) > 1.1 * csf


def test_folds_keep_the_templates_share_of_each_tissue_and_are_another_brains_own(plain: Anatomy) -> None:
    inside, grey, white, _ = template().maps
    brain = inside > 0.5
    expected = torch.stack([1 - grey - white, grey, white])[:, brain].clamp(min=0).mean(1)

    other = build_anatomy({**PLAIN, "shape_seed": 2}, seed=1)

    for anatomy in (plain, other):
        torch.testing.assert_close(anatomy.tissue[:, anatomy.brain].mean(1), expected, atol=0.04, rtol=0)
    kinds = plain.tissue.argmax(0), other.tissue.argmax(0)
    changed = (kinds[0] != kinds[1])[plain.brain].float().mean()
    assert 0.05 < float(changed) < 0.5


def test_grey_matter_lies_between_csf_and_white_matter(plain: Anatomy) -> None:
    csf, grey, white = plain.tissue[:, plain.brain] > 0.5
    near_csf = ndimage.binary_dilation(plain.tissue[0].numpy() > 0.5)[plain.brain.numpy()]

    assert near_csf[grey.numpy()].mean() > 3 * near_csf[white.numpy()].mean()
    assert csf.any()


@pytest.mark.parametrize("beyond", [-1.0, 2.0])
def test_skull_stripping_reaches_so_many_millimetres_beyond_the_surface(plain: Anatomy, beyond: float) -> None:
    surface = plain.brain & ~torch.from_numpy(ndimage.binary_erosion(plain.brain.numpy()))

    stripped = build_anatomy({**PLAIN, "strip_mm": beyond}, seed=1).brain

    grown = (int(stripped.sum()) - int(plain.brain.sum())) / int(surface.sum())
    assert grown == pytest.approx(beyond, rel=0.35)


def test_a_push_moves_tissue_but_not_the_outline(plain: Anatomy) -> None:
    def to_the_left(coordinates: torch.Tensor) -> torch.Tensor:
        return torch.tensor([8.0, 0, 0]).view(3, 1, 1, 1).expand_as(coordinates)

    pushed = build_anatomy(PLAIN, seed=1, push=to_the_left)

    assert torch.equal(pushed.brain, plain.brain)
    middle = plain.brain.shape[0] // 2, plain.brain.shape[1] // 2, plain.brain.shape[2] // 2
    here = plain.tissue[2][middle[0] - 20 : middle[0] + 20, middle[1], middle[2]]
    there = pushed.tissue[2][middle[0] - 12 : middle[0] + 28, middle[1], middle[2]]
    torch.testing.assert_close(there, here, atol=0.02, rtol=0)


def test_a_rotation_of_90_degrees_about_the_last_axis_turns_the_first_onto_the_second() -> None:
    np.testing.assert_allclose(rotation((0, 0, 90)) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
