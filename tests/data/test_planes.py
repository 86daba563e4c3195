"""The three planes: which way up they lie, and that they hold the same voxels."""

import numpy as np
import pytest

from emcad_lib.data.planes import PLANES, as_axial, pixel_mm, recut


@pytest.fixture
def axial():
    """A head (5, 7, 9) whose value is 100 times the height, 10 times the way from front to back, and once the side."""
    height, back, side = np.meshgrid(range(5), range(7), range(9), indexing="ij")
    return 100 * height + 10 * back + side


def test_axial_slices_stay_as_they_are(axial):
    assert recut(axial, "axial") is axial


def test_coronal_slices_go_from_front_to_back_with_the_top_up(axial):
    coronal = recut(axial, "coronal")

    assert coronal.shape == (7, 5, 9)
    assert coronal[2, 0, 3] == 423  # slice 2 from the front, uppermost row, column 3 from the side
    assert coronal[6, 4, 0] == 60


def test_sagittal_slices_go_from_side_to_side_with_the_top_up_and_the_face_at_the_left(axial):
    sagittal = recut(axial, "sagittal")

    assert sagittal.shape == (9, 5, 7)
    assert sagittal[3, 0, 0] == 403
    assert sagittal[8, 4, 6] == 68


@pytest.mark.parametrize("plane", PLANES)
def test_channels_go_along_and_the_way_back_leads_back(axial, plane):
    channels = np.stack([axial, -axial], axis=1)  # (5, 2, 7, 9)

    cut = recut(channels, plane)

    np.testing.assert_array_equal(cut[:, 0], recut(axial, plane))
    np.testing.assert_array_equal(cut[:, 1], -recut(axial, plane))
    np.testing.assert_array_equal(as_axial(cut, plane), channels)
    np.testing.assert_array_equal(as_axial(recut(axial, plane), plane), axial)


@pytest.mark.parametrize("function", [recut, as_axial])
def test_another_plane_is_refused(axial, function):
    with pytest.raises(ValueError, match="no plane 'oblique'"):
        function(axial, "oblique")


def test_pixels_of_each_plane_have_the_spacing_down_and_across():
    spacing = (1.0, 2.0, 3.0)  # left, back, up

    assert pixel_mm(spacing, "axial") == (2.0, 1.0)
    assert pixel_mm(spacing, "coronal") == (3.0, 1.0)
    assert pixel_mm(spacing, "sagittal") == (3.0, 2.0)
