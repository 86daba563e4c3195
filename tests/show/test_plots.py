"""Pictures hold what they were given: every number, outline and label."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet

from emcad_lib.show import plots

IMAGE = np.linspace(-2, 2, 20 * 30, dtype=np.float32).reshape(20, 30)
HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "updates": [10, 20, 30], "dice_patient": [0.2, np.nan, 0.6]})


@pytest.fixture
def regions():
    """Region bits (20, 30): the whole tumour 10 x 10, the core 6 x 6, the enhancing part 2 x 2."""
    bits = np.zeros((20, 30), dtype=np.uint8)
    bits[5:15, 10:20] = 1
    bits[7:13, 12:18] = 3
    bits[9:11, 14:16] = 7
    return bits


def draw(figure):
    """The figure's PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return buffer.getvalue()


def contours(axes):
    """The outlines in a picture: colour -> (lowest x, highest x, lowest y, highest y)."""
    found = {}
    for collection in axes.collections:
        if isinstance(collection, QuadContourSet):
            corners = np.concatenate([path.vertices for path in collection.get_paths()])
            (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
            found[to_hex(collection.get_edgecolor()[0]).upper()] = (x0, x1, y0, y1)
    return found


def legend_labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


FIGURES = {
    "slice_view": lambda bits: plots.slice_view(IMAGE, bits, "a slice"),
    "slices": lambda bits: plots.slices({"FLAIR": IMAGE, "T1": IMAGE}, bits, "two slices"),
    "map_over_slice": lambda bits: plots.map_over_slice(IMAGE[:5, :5], IMAGE, "a map", label="strength"),
    "maps": lambda bits: plots.maps({"one": IMAGE, "two": IMAGE[:5, :5]}, "two maps", label="strength"),
    "curves": lambda bits: plots.curves({"batch 6": HISTORY, "batch 16": HISTORY}, title="two curves"),
    "bars": lambda bits: plots.bars({"ours": 0.7, "theirs": 0.3}, "Dice", "two bars"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_draws_the_same_bytes_each_time(name, regions):
    assert draw(FIGURES[name](regions)) == draw(FIGURES[name](regions))


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_carries_its_title(name, regions):
    figure = FIGURES[name](regions)
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]

    assert any(title.startswith(("a ", "two ")) for title in titles)


def test_drawing_leaves_pyplot_alone(regions):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for make in FIGURES.values():
        draw(make(regions))

    assert plt.get_fignums() == before


def test_a_slice_shows_its_voxels_in_the_given_window():
    (axes,) = plots.slice_view(IMAGE, window=(-1, 3)).axes
    (picture,) = axes.images

    np.testing.assert_array_equal(picture.get_array(), IMAGE)
    assert picture.get_clim() == (-1, 3)


def test_each_region_is_outlined_in_its_colour_where_it_is(regions):
    (axes,) = plots.slice_view(IMAGE, regions).axes

    # A mask of columns 10 to 19 has its border halfway between 9 and 10, and between 19 and 20.
    assert contours(axes) == {
        plots.REGION_COLOURS["whole"]: (9.5, 19.5, 4.5, 14.5),
        plots.REGION_COLOURS["core"]: (11.5, 17.5, 6.5, 12.5),
        plots.REGION_COLOURS["enhancing"]: (13.5, 15.5, 8.5, 10.5),
    }


def test_only_the_regions_that_are_asked_for_are_outlined_and_named(regions):
    figure = plots.slice_view(IMAGE, regions, outline=("core",))

    assert list(contours(figure.axes[0])) == [plots.REGION_COLOURS["core"]]
    assert legend_labels(figure) == ["tumour core"]


def test_the_legend_names_the_regions_in_the_colours_of_their_outlines(regions):
    figure = plots.slice_view(IMAGE, regions)
    (legend,) = figure.legends

    assert legend_labels(figure) == ["whole tumour", "tumour core", "enhancing tumour"]
    assert [line.get_color() for line in legend.get_lines()] == list(plots.REGION_COLOURS.values())


def test_without_regions_there_is_neither_outline_nor_legend():
    figure = plots.slice_view(IMAGE)

    assert contours(figure.axes[0]) == {}
    assert figure.legends == []


def test_with_no_region_chosen_there_is_neither_outline_nor_legend(regions):
    figure = plots.slice_view(IMAGE, regions, outline=())
    draw(figure)

    assert contours(figure.axes[0]) == {}
    assert legend_labels(figure) == []


@pytest.mark.parametrize("bits", [0, 7])
def test_a_slice_without_tumour_or_full_of_it_draws_without_an_outline(bits):
    figure = plots.slice_view(IMAGE, np.full(IMAGE.shape, bits, dtype=np.uint8))
    draw(figure)

    assert contours(figure.axes[0]) == {}


@pytest.mark.parametrize(("count", "columns", "grid"), [(1, 4, 1), (4, 4, 4), (5, 4, 8), (3, 2, 4)])
def test_slices_side_by_side_each_stand_under_their_name_and_spare_places_stay_blank(count, columns, grid, regions):
    images = {f"slice {number}": IMAGE * (number + 1) for number in range(count)}

    figure = plots.slices(images, regions, columns=columns)

    assert len(figure.axes) == grid
    assert [axes.get_title() for axes in figure.axes[:count]] == list(images)
    for axes, image in zip(figure.axes, images.values(), strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert len(contours(axes)) == 3
    assert not any(axes.axison for axes in figure.axes)


def test_a_coarse_map_covers_the_same_field_of_view_as_the_slice():
    values = np.arange(4.0).reshape(2, 2)

    figure = plots.map_over_slice(values, IMAGE, label="strength", limits=(0, 10))
    slice_axes, map_axes, bar = figure.axes

    np.testing.assert_array_equal(map_axes.images[0].get_array(), values)
    assert map_axes.images[0].get_extent() == [0, 30, 20, 0]
    assert map_axes.images[0].get_clim() == (0, 10)
    assert bar.get_ylabel() == "strength"
    np.testing.assert_array_equal(slice_axes.images[0].get_array(), IMAGE)


def test_maps_share_one_scale_where_limits_are_given_and_take_their_own_else():
    values = {"small": np.array([[0.0, 1.0]]), "large": np.array([[0.0, 8.0]])}

    shared = plots.maps(values, limits=(0, 5))
    own = plots.maps(values)

    assert [axes.images[0].get_clim() for axes in shared.axes[:2]] == [(0, 5), (0, 5)]
    assert [axes.images[0].get_clim() for axes in own.axes[:2]] == [(0, 1), (0, 8)]
    assert [axes.get_title() for axes in own.axes[:2]] == ["small", "large"]


def test_curves_are_the_columns_that_were_asked_for():
    other = HISTORY.assign(dice_patient=[0.1, 0.3, 0.5])

    figure = plots.curves({"batch 6": HISTORY, "batch 16": other}, x="updates", x_label="updates", y_label="Dice")
    (axes,) = figure.axes

    for line, history in zip(axes.lines, (HISTORY, other), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
        np.testing.assert_array_equal(line.get_ydata(), history["dice_patient"])
    assert legend_labels(figure) == ["batch 6", "batch 16"]
    figure.canvas.draw()
    assert not figure.legends[0].get_window_extent().overlaps(axes.get_window_extent())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("updates", "Dice")


def test_up_to_21_curves_differ_in_colour_or_marker():
    figure = plots.curves({str(number): HISTORY for number in range(21)})

    drawn = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(figure.axes[0].lines) == 21
    assert len(drawn) >= 7
    assert len({line.get_color() for line in figure.axes[0].lines[:7]}) == 7
    assert len({line.get_marker() for line in figure.axes[0].lines[:7]}) == 7


def test_bars_are_as_long_as_their_values_and_say_them():
    figure = plots.bars({"decoder": 506507, "encoder": 3409760}, "parameters", digits=0)
    (axes,) = figure.axes

    assert [bar.get_width() for bar in axes.patches] == [506507, 3409760]
    assert [text.get_text() for text in axes.texts] == ["506,507", "3,409,760"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["decoder", "encoder"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first at the top
    assert axes.get_xlabel() == "parameters"


def test_a_summary_holds_each_arrays_shape_and_spread():
    table = plots.summarise({"ramp": np.arange(101.0), "flat": np.full((2, 3), 4)}).set_index("name")

    assert list(table.columns) == ["shape", "mean", "sd", "p5", "p50", "p95"]
    assert table.loc["ramp"].tolist() == ["101", 50.0, pytest.approx(np.sqrt(850)), 5.0, 50.0, 95.0]
    assert table.loc["flat"].tolist() == ["2x3", 4.0, 0.0, 4.0, 4.0, 4.0]


def test_a_new_figure_has_the_size_and_the_axes_that_were_asked_for():
    figure, axes = plots.new_figure(9, 4, rows=2, columns=3)

    assert axes.shape == (2, 3)
    assert figure.get_size_inches().tolist() == [9, 4]


def test_each_of_several_maps_may_have_a_quantity_of_its_own():
    values = {"slice": np.zeros((4, 4)), "gate": np.ones((4, 4))}

    figures = plots.maps(values, label="value"), plots.maps(values, label={"slice": "z-score", "gate": "opening"})

    bars = [[axes.get_ylabel() for axes in figure.axes if axes.get_label() == "<colorbar>"] for figure in figures]
    assert bars == [["value", "value"], ["z-score", "opening"]]
