"""Pictures of several runs show every run, their mean, and their range."""

import numpy as np
import pandas as pd

from emcad_lib.show import plots
from emcad_lib.show.spread import draw_bands, draw_dots


def history(dice, seconds=(1.0, 2.0)):
    return pd.DataFrame({"epoch": [1, 2], "updates": [10, 20], "seconds": seconds, "dice_patient": dice})


def test_a_band_reaches_from_the_lowest_run_to_the_highest_and_its_line_is_their_mean():
    figure, axes = plots.new_figure()
    runs = {"6": [history([0.1, 0.4]), history([0.3, 0.8]), history([0.2, 0.3])], "16": [history([0.5, 0.6])]}

    draw_bands(axes[0, 0], runs, "updates", "dice_patient", "updates", "Dice")

    first, second = axes[0, 0].lines
    np.testing.assert_array_equal(first.get_xdata(), [10, 20])
    np.testing.assert_allclose(first.get_ydata(), [0.2, 0.5])
    np.testing.assert_allclose(second.get_ydata(), [0.5, 0.6])
    corners = axes[0, 0].collections[0].get_paths()[0].vertices
    at_the_end = corners[corners[:, 0] == 20][:, 1]
    assert (at_the_end.min(), at_the_end.max()) == (0.3, 0.8)
    assert [text.get_text() for text in axes[0, 0].legend().get_texts()] == ["6", "16"]


def test_runs_that_took_different_times_lie_at_their_mean_time_and_epochs_stay_whole():
    figure, axes = plots.new_figure(rows=1, columns=2)
    runs = {"6": [history([0.1, 0.4], (1, 2)), history([0.3, 0.8], (3, 6))]}

    draw_bands(axes[0, 0], runs, "seconds", "dice_patient")
    draw_bands(axes[0, 1], runs, "epoch", "dice_patient")

    np.testing.assert_array_equal(axes[0, 0].lines[0].get_xdata(), [2, 4])
    np.testing.assert_array_equal(axes[0, 1].lines[0].get_xdata(), [1, 2])


def test_every_run_is_a_dot_and_one_that_never_got_there_is_a_triangle_above_without_a_mean():
    figure, axes = plots.new_figure()

    draw_dots(axes[0, 0], {"6": [0.1, 0.5, 0.3], "16": [0.2, np.nan]}, "Dice")

    dots, no_triangles, mean, lone, triangle = axes[0, 0].collections
    assert sorted(dots.get_offsets()[:, 1]) == [0.1, 0.3, 0.5]
    assert len(set(dots.get_offsets()[:, 0])) == 3
    assert len(no_triangles.get_offsets()) == 0
    np.testing.assert_allclose(mean.get_segments()[0][:, 1], 0.3)
    assert lone.get_offsets()[:, 1].tolist() == [0.2]
    assert len(triangle.get_offsets()) == 1
    figure.canvas.draw()
    height = (
        axes[0, 0].transAxes.inverted().transform(triangle.get_offset_transform().transform(triangle.get_offsets()))
    )
    assert 0.9 < height[0, 1] < 1
    assert [label.get_text() for label in axes[0, 0].get_xticklabels()] == ["6", "16"]
