"""Pictures of changes to a recipe show every run, and which way each change went."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb

from emcad_lib.show import plots
from emcad_lib.show.steps import draw_changes, draw_pareto, draw_waterfall, unbeaten


@pytest.fixture
def axes():
    return plots.new_figure()[1][0, 0]


def test_every_seed_is_a_dot_and_only_what_lies_outside_the_baseline_s_range_with_all_of_them_has_a_colour(axes):
    steps = {"more": [0.8, 0.75], "less": [0.1, 0.2, 0.3], "one more": [0.9, 0.6], "one less": [0.4, 0.5]}
    draw_changes(axes, [0.5, 0.7], steps, "Dice")

    span = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (span.x0, span.x1) == pytest.approx((0.5, 0.7))
    assert axes.lines[0].get_xdata() == pytest.approx([0.6, 0.6])
    dots, means = axes.collections[::2], axes.collections[1::2]
    for row, (each, mean, scores) in enumerate(zip(dots, means, steps.values(), strict=True)):
        np.testing.assert_allclose(each.get_offsets(), [[score, row] for score in scores])
        assert mean.get_segments()[0][:, 0] == pytest.approx([np.mean(scores)] * 2)
    looks = [(tuple(each.get_facecolor()[0]), len(each.get_paths()[0].vertices)) for each in dots]
    better, worse, *either = looks
    assert better[0][:3] == pytest.approx(to_rgb(plots.COLOURS["blue"]))
    assert worse[0][:3] == pytest.approx(to_rgb(plots.COLOURS["red"]))
    assert either[0] == either[1]
    assert len({colour for colour, _ in looks}) == 3
    assert better[1] != worse[1]  # told apart without colours, too
    legend = axes.get_legend_handles_labels()[1]
    assert sorted(legend[-3:]) == ["all dots to its left", "all dots to its right", "not all on one side"]
    assert [text.get_text() for text in axes.get_yticklabels()] == list(steps)
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
