"""Three linked views meet in one point, errors are told apart by hatch too, and a body hides nothing inside of it."""

import numpy as np
import pytest

from emcad_lib.show import cases
from emcad_lib.show.plots import COLOURS, REGION_COLOURS, new_figure

VOLUME = np.random.default_rng(0).normal(size=(12, 20, 9)).astype(np.float32)  # left, back, up
POINT = (3, 14, 2)


def ball(*, radius=3.0, centre=(6, 10, 4)):
    grid = np.indices(VOLUME.shape).T - np.array(centre)
    return np.linalg.norm(grid, axis=-1).T <= radius


def test_the_three_cuts_hold_the_common_point_where_the_crosshair_meets():
    above, front, side = cases.cuts(VOLUME, POINT).values()

    assert (above.shape, front.shape, side.shape) == ((20, 12), (9, 12), (9, 20))
    assert above[14, 3] == front[9 - 1 - 2, 3] == side[9 - 1 - 2, 14] == VOLUME[POINT]


@pytest.mark.parametrize(("view", "column", "row"), [(0, 3, 14), (1, 3, 6), (2, 14, 6)])
def test_each_view_has_a_crosshair_at_the_point_with_a_gap_round_it(view, column, row):
    figure = cases.linked_views(VOLUME, {}, POINT)

    yellow = [line for line in figure.axes[view].lines if line.get_color() == COLOURS["yellow"]]
    across = [line for line in yellow if len(set(line.get_ydata())) == 1]
    down = [line for line in yellow if len(set(line.get_xdata())) == 1]
    assert {line.get_ydata()[0] for line in across} == {row}
    assert {line.get_xdata()[0] for line in down} == {column}
    assert not any(min(line.get_xdata()) < column < max(line.get_xdata()) for line in across)
    assert not any(min(line.get_ydata()) < row < max(line.get_ydata()) for line in down)


def test_views_and_their_bar_follow_the_size_of_a_voxel():
    figure = cases.linked_views(VOLUME, {}, POINT, spacing=(1.0, 2.0, 5.0))

    assert [axes.get_aspect() for axes in figure.axes] == [2.0, 5.0, 2.5]
    bars = [line.get_xdata() for axes in figure.axes for line in axes.lines if line.get_color() == "white"]
    assert [end - start for start, end in bars] == [50.0, 50.0, 25.0]


def test_a_region_has_its_colour_and_name_whether_it_is_found_or_true_and_other_masks_have_colours_of_their_own():
    masks = {name: ball() for name in ("core", "core, true", "truth", "found")}

    figure = cases.linked_views(VOLUME, masks, (6, 10, 4), dashed=["core, true", "truth"])

    lines = {text.get_text(): line for text, line in zip(*legend(figure), strict=True)}
    assert list(lines) == ["tumour core", "tumour core, true", "truth", "found"]
    assert lines["tumour core"].get_color() == lines["tumour core, true"].get_color() == REGION_COLOURS["core"]
    assert lines["truth"].get_color() != lines["found"].get_color()
    assert [line.get_linestyle() for line in lines.values()] == ["-", "--", "--", "-"]


def legend(figure):
    return figure.legends[0].get_texts(), figure.legends[0].legend_handles


def test_errors_are_told_apart_by_colour_and_by_hatch_and_cover_the_right_pixels():
    found, truth = np.zeros((2, 6, 8), dtype=bool)
    found[1:4, 2:5] = True
    truth[2:5, 2:5] = True
    figure, axes = new_figure()

    cases.draw_errors(axes[0, 0], VOLUME[:6, :8, 0], found, truth)

    right, missed, false_alarm = (layer.get_array()[..., 3] > 0 for layer in axes[0, 0].images[1:])
    np.testing.assert_array_equal(right, found & truth)
    np.testing.assert_array_equal(missed, truth & ~found)
    np.testing.assert_array_equal(false_alarm, found & ~truth)
    assert [drawn.hatches for drawn in axes[0, 0].collections] == [["////"], ["...."]]


def test_a_gallery_shows_each_case_under_its_title():
    case = (VOLUME[:, :, 0], ball()[:, :, 4], np.zeros((12, 20), dtype=bool))

    figure = cases.error_gallery({name: case for name in "abc"}, "worst")

    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", ""]
    assert [text.get_text() for text in legend(figure)[0]] == ["found", "missed", "false alarm"]


def test_what_lies_inside_shines_through_the_body_in_every_view():
    inner = ball(radius=1.0)

    figure = cases.solid_views(ball(radius=4.0), {"whole": ball(radius=2.5), "enhancing": inner})

    assert [axes.images[0].get_array().shape[:2] for axes in figure.axes] == [(20, 12), (9, 12), (9, 20)]
    red = np.array([int(REGION_COLOURS["enhancing"][c : c + 2], 16) for c in (1, 3, 5)]) / 255
    seen_from = (inner.any(axis=2).T, inner.any(axis=1).T[::-1], inner.any(axis=0).T[::-1])
    for axes, seen in zip(figure.axes, seen_from, strict=True):
        picture = axes.images[0].get_array()
        assert (picture[seen] @ red > 1.5 * picture[seen][:, 2]).all()  # reddish, and hardly blue
        assert (picture[0, 0] == 0).all()  # beside the body: black


def test_a_surface_that_faces_the_viewer_is_bright_and_one_that_is_seen_edge_on_is_dark():
    body = np.zeros((20, 20, 20), dtype=bool)
    body[4:16, 4:16, 5:] = True

    figure = cases.solid_views(body, {})

    below = figure.axes[0].images[0].get_array()[..., 0]
    assert below[10, 10] > 1.3 * below[10, 4] > 0
