"""The template: coordinates, and what lies where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emcad_lib.data import template as module
from emcad_lib.data.template import hindbrain, template, tentorium
from emcad_lib.files import CourseError


def place(*mni: float) -> torch.Tensor:
    return torch.tensor(mni).view(3, 1)


def test_mni_coordinates_and_voxels_go_both_ways_and_the_axes_are_l_p_s() -> None:
    atlas = template()
    voxel = np.array([10.0, 20.0, 30.0])

    np.testing.assert_allclose(atlas.voxel(atlas.mni(voxel)), voxel)
    # One voxel on along each axis: to the patient's left (MNI x falls), back (y falls) and top (z rises).
    np.testing.assert_allclose(atlas.mni(voxel + 1) - atlas.mni(voxel), (-1, -1, 1))
    assert abs(atlas.mni(atlas.centre)[0]) < 1


def test_inside_is_a_half_at_the_surface() -> None:
    atlas = template()

    inside = atlas.maps[0]

    assert float((inside > 0.5).sum()) / 1000 == pytest.approx(atlas.volume, rel=0.02)
    assert float(inside.max()) == pytest.approx(1, abs=1e-3)
    assert float(inside[0].max()) < 0.01  # the maps reach beyond the brain on every side


@pytest.mark.parametrize(
    ("mni", "expected"),
    [
        ((25, -65, -40), 1),  # cerebellar hemisphere
        ((0, -25, -30), 1),  # pons
        ((0, -85, 10), 0),  # visual cortex
        ((45, -15, -25), 0),  # temporal lobe
        ((25, 20, 30), 0),  # frontal white matter
    ],
)
def test_cerebellum_and_brain_stem_are_told_from_the_cerebrum(mni: tuple[float, ...], expected: float) -> None:
    assert float(hindbrain(place(*mni))) == pytest.approx(expected, abs=0.1)


def test_the_roof_over_the_cerebellum_falls_to_the_sides_and_to_the_back() -> None:
    top = float(tentorium(place(0, -50, 0)))

    assert float(tentorium(place(40, -50, 0))) < top
    assert float(tentorium(place(-40, -50, 0))) == float(tentorium(place(40, -50, 0)))
    assert float(tentorium(place(0, -90, 0))) < top


def test_a_missing_nilearn_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    template.cache_clear()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(CourseError, match="pip install 'nilearn"):
        template()
