"""Pictures of changes to a recipe show every run, and which way each change went."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from emcad_lib.show import plots
from emcad_lib.show.steps import draw_changes, draw_pareto, draw_waterfall, unbeaten


@pytest.fixture
def axes():
    return plots.new_figure()[1][0, 0]


def test_every_seed_is_a_dot_in_its_row_and_better_and_worse_differ_in_colour_and_marker(axes):
    draw_changes(axes, [0.5, 0.7], {"more": [0.8, 0.6], "less": [0.1, 0.2, 0.3]}, "Dice")

    span = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (span.x0, span.x1) == pytest.approx((0.5, 0.7))
    assert axes.lines[0].get_xdata() == pytest.approx([0.6, 0.6])
    better, better_mean, worse, worse_mean = axes.collections
    np.testing.assert_allclose(better.get_offsets(), [[0.8, 0], [0.6, 0]])
    np.testing.assert_allclose(worse.get_offsets(), [[0.1, 1], [0.2, 1], [0.3, 1]])
    assert better_mean.get_segments()[0][:, 0] == pytest.approx([0.7, 0.7])
    assert worse_mean.get_segments()[0][:, 0] == pytest.approx([0.2, 0.2])
    assert better.get_facecolor()[0][:3] != pytest.approx(worse.get_facecolor()[0][:3])
    assert len(better.get_paths()[0].vertices) != len(worse.get_paths()[0].vertices)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["more", "less"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top


def test_a_waterfall_goes_from_mean_to_mean_and_a_loss_is_hatched(axes):
    draw_waterfall(axes, {"start": [0.2, 0.4], "up": [0.5], "down": [0.45, 0.45]}, "Dice")

    bars = [(bar.get_y(), bar.get_y() + bar.get_height(), bar.get_hatch() or "") for bar in axes.patches]
    assert bars[0][:2] == pytest.approx((0, 0.3))
    assert bars[1][:2] == pytest.approx((0.3, 0.5))
    assert bars[2][:2] == pytest.approx((0.5, 0.45))
    assert [hatch for *_, hatch in bars] == ["", "", "//"]
    assert [text.get_text() for text in axes.texts] == ["0.30", "+0.20", "-0.05"]
    found = [dots.get_offsets() for dots in axes.collections if isinstance(dots, PathCollection)]
    dots = np.concatenate(found)
    assert sorted(dots[:, 1]) == pytest.approx([0.2, 0.4, 0.45, 0.45, 0.5])


@pytest.mark.parametrize(
    ("costs", "scores", "expected"),
    [
        ({"a": 1, "b": 2, "c": 3}, {"a": 0.5, "b": 0.4, "c": 0.6}, ["a", "c"]),
        ({"a": 3, "b": 2, "c": 1}, {"a": 0.5, "b": 0.6, "c": 0.1}, ["c", "b"]),
        ({"a": 1, "b": 1}, {"a": 0.5, "b": 0.6}, ["b"]),
        ({"a": 1, "b": 2}, {"a": 0.5, "b": 0.5}, ["a"]),
    ],
)
def test_unbeaten_is_whom_nobody_beats_in_cost_and_score(costs, scores, expected):
    assert unbeaten(costs, scores) == expected


def test_the_line_of_a_pareto_plot_joins_the_unbeaten_and_every_network_has_its_range(axes):
    scores = {"small": [0.4, 0.6], "large": [0.7, 0.9], "poor": [0.1, 0.3]}

    best = draw_pareto(axes, {"small": 1e6, "large": 4e6, "poor": 2e6}, scores, "parameters")

    assert best == ["small", "large"]
    line, *points = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[1e6, 0.5], [4e6, 0.8]])
    assert [point.get_label() for point in points] == ["small", "large", "poor"]
    ends = [bar.get_segments()[0][:, 1].tolist() for bar in axes.collections]
    assert ends == [[0.4, 0.6], [0.7, 0.9], [0.1, 0.3]]
    assert axes.get_xscale() == "log"
    assert len({point.get_marker() for point in points}) == 3
