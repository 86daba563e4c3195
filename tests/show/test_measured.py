"""Pictures of measured patients show every patient and region where the table has it."""

import numpy as np
import pandas as pd

from emcad_lib.show import measured as show
from emcad_lib.show.plots import REGION_COLOURS

TABLE = pd.DataFrame(
    [
        ("A", "whole", 0.9, 3.0, 100.0, 90.0),
        ("A", "core", 0.5, 8.0, 20.0, 30.0),
        ("B", "whole", 0.6, 20.0, 50.0, 60.0),
        ("B", "core", 0.0, np.nan, 0.0, 2.0),  # found where there is none
    ],
    columns=["patient", "region", "dice", "hd95_mm", "true_cm3", "found_cm3"],
).assign(error_cm3=lambda table: table["found_cm3"] - table["true_cm3"])


def marks(axes, region):
    """The marks of a region: its lines with a marker, as (x, y)."""
    (line,) = (
        line for line in axes.lines if line.get_color() == REGION_COLOURS[region] and line.get_marker() != "None"
    )
    return np.transpose(line.get_data()).tolist(), line.get_marker()


def test_patients_are_rows_with_the_best_whole_tumour_on_top_and_a_mark_of_its_own_for_each_region():
    overlap, distance = show.by_region(TABLE).axes

    assert [text.get_text() for text in overlap.get_yticklabels()] == ["B", "A"]
    assert marks(overlap, "whole") == ([[0.6, 0], [0.9, 1]], "o")
    assert marks(overlap, "core") == ([[0.0, 0], [0.5, 1]], "s")
    assert marks(distance, "whole")[0] == [[20.0, 0], [3.0, 1]]
    assert [line.get_xdata()[0] for line in overlap.lines if line.get_linestyle() == ":"] == [0.75, 0.25]


def test_scores_lie_over_true_volumes_without_regions_that_are_not_there_beside_the_curves():
    figure = show.by_size(TABLE, {"a curve": ([1, 10], [0.2, 0.4])})

    overlap, distance = figure.axes
    assert marks(overlap, "whole")[0] == [[100.0, 0.9], [50.0, 0.6]]
    assert marks(overlap, "core")[0] == [[20.0, 0.5]]
    assert marks(distance, "core")[0] == [[20.0, 8.0]]
    assert overlap.lines[0].get_ydata().tolist() == [0.2, 0.4]
    assert "a curve" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_errors_of_volumes_lie_over_the_mean_of_found_and_true_between_their_limits():
    limits = pd.DataFrame({"mean error": [0.0, 6.0], "spread": [20.0, 8.0]}, index=["whole", "core"])

    figure = show.volume_errors(TABLE, limits)

    whole, core = figure.axes
    assert marks(whole, "whole")[0] == [[95.0, -10.0], [55.0, 10.0]]
    assert marks(core, "core")[0] == [[25.0, 10.0], [1.0, 2.0]]
    flat = [line.get_ydata()[0] for line in core.lines if line.get_marker() == "None"]
    assert flat == [0, 6.0, -2.0, 14.0]  # nothing, the mean, its limits


def test_what_came_true_lies_over_what_was_said_for_each_way_and_the_bars_count_the_last_ways_voxels():
    bins = pd.DataFrame({"voxels": [90, 10], "said": [0.1, 0.8], "true": [0.0, 0.9]})
    tables = {(way, region): bins for way in ("one", "other") for region in ("whole", "core")}
    tables["other", "core"] = bins.assign(voxels=[50, 5])

    figure = show.calibration(tables)

    top, _, below, counts = figure.axes
    diagonal, one, other = top.lines
    assert [np.transpose(line.get_data()).tolist() for line in (one, other)] == [[[0.1, 0.0], [0.8, 0.9]]] * 2
    assert len({line.get_marker() for line in top.lines}) == 3
    assert [bar.get_height() for bar in counts.patches] == [50, 5]
    assert [bar.get_x() + bar.get_width() / 2 for bar in counts.patches] == [0.25, 0.75]
    assert below.get_ylabel() == "voxels (other)"
