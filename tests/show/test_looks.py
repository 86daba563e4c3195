"""Every picture of what a block sees holds what it was given, and another value of any control is another picture."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet

from emcad_lib.show import looks

SIDE = 48
NUMBERS = range(4)  # slices; the first has no tumour
STAGES = {1: (8, 12), 2: (16, 6), 3: (40, 3), 4: (64, 2)}  # channels and places a side


def picture(figure):
    """The figure's PNG, coarse: what differs here differs for an eye too."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def patient():
    """Slices (4, 48, 48) and masks of tumours that grow from none."""
    images = np.random.default_rng(0).normal(size=(len(NUMBERS), SIDE, SIDE)).astype(np.float32)
    tumours = np.zeros(images.shape, dtype=np.float32)
    for number in NUMBERS:
        tumours[number, 10 : 10 + 7 * number, 15 : 15 + 7 * number] = 1
    return images, tumours


@pytest.fixture(scope="module")
def network():
    """Features (C, h, w) and knobs (C,) by slice and stage."""
    random = np.random.default_rng(1)
    features = {(n, s): random.normal(size=(c, side, side)) for n in NUMBERS for s, (c, side) in STAGES.items()}
    return features, {key: random.uniform(0.05, 0.95, size=len(maps)) for key, maps in features.items()}


def maps_drawn(figure):
    """The arrays of a figure's pictures, in order, the slice first."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def outlined(figure):
    """Which of the axes hold an outline."""
    return [any(isinstance(part, QuadContourSet) for part in axes.collections) for axes in figure.axes if axes.images]


def test_each_slice_stage_and_channel_is_another_picture_of_the_branches(patient, network):
    images, tumours = patient
    features, _ = network
    seen = {
        (n, s, c): picture(
            looks.beside_slice(images[n], tumours[n], {"1x1": features[n, s][c], "sum": features[n, s][0]})
        )
        for n, s, c in itertools.product(NUMBERS, STAGES, (0, 1, 7))
    }

    assert len(set(seen.values())) == len(seen) == 4 * 4 * 3


def test_each_slice_and_stage_is_another_picture_of_the_knobs(patient, network):
    images, tumours = patient
    _, knobs = network
    half = {stage: np.full(channels, 0.5) for stage, (channels, _) in STAGES.items()}
    seen = {
        (n, s): picture(looks.channel_knobs(images[n], tumours[n], {"untrained": half[s], "trained": knobs[n, s]}))
        for n, s in itertools.product(NUMBERS, STAGES)
    }

    assert len(set(seen.values())) == len(seen) == 4 * 4


def test_each_slice_and_stage_is_another_picture_of_the_open_and_the_closed(patient, network):
    images, tumours = patient
    features, knobs = network
    seen = {
        key: picture(looks.open_and_closed(images[key[0]], tumours[key[0]], features[key], knobs[key], count=1))
        for key in itertools.product(NUMBERS, STAGES)
    }

    assert len(set(seen.values())) == len(seen) == 4 * 4


def test_each_place_is_another_picture_and_the_cross_marks_one_pixel_of_the_slice_and_of_the_map(patient):
    images, tumours = patient
    places = list(itertools.product((0, 4, SIDE - 1), (0, 20, SIDE - 1)))
    figures = {
        place: looks.beside_slice(images[2], tumours[2], {"gradient": images[1]}, place=place) for place in places
    }

    assert len({picture(figure) for figure in figures.values()}) == len(places)
    for (row, column), figure in figures.items():
        on_slice, on_map = [axes.lines[0].get_xydata()[0] for axes in figure.axes if axes.images and axes.lines]
        np.testing.assert_allclose(on_slice, (column, row))  # pixel (0, 0) of the slice has its centre at (0, 0)
        np.testing.assert_allclose(on_map, (column + 0.5, row + 0.5))  # and of the map its corner


def test_the_same_arguments_draw_the_same_picture_and_nothing_is_changed(patient, network):
    images, tumours = patient
    features, knobs = network
    before = [array.copy() for array in (images, tumours, features[3, 2], knobs[3, 2])]

    for draw in (
        lambda: looks.beside_slice(images[3], tumours[3], {"a": features[3, 2][0]}, limits=(-1, 1), place=(3, 4)),
        lambda: looks.channel_knobs(images[3], tumours[3], {"trained": knobs[3, 2]}),
        lambda: looks.open_and_closed(images[3], tumours[3], features[3, 2], knobs[3, 2]),
    ):
        assert picture(draw()) == picture(draw())
    for array, kept in zip((images, tumours, features[3, 2], knobs[3, 2]), before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_the_maps_are_the_ones_given_over_the_slices_field_of_view(patient, network):
    images, tumours = patient
    features, _ = network
    given = {f"stage {stage}": features[1, stage][0] for stage in STAGES}
    figure = looks.beside_slice(images[1], tumours[1], given, title="maps", label="value")

    for array, expected in zip(maps_drawn(figure)[1:], given.values(), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert [axes.get_title() for axes in figure.axes[1:5]] == list(given)
    assert all(axes.images[0].get_extent() == [0, SIDE, SIDE, 0] for axes in figure.axes[1:5])


def test_limits_hold_for_all_maps(patient, network):
    images, tumours = patient
    features, _ = network
    figure = looks.beside_slice(images[1], tumours[1], {"a": features[1, 1][0], "b": features[1, 4][0]}, limits=(0, 2))

    assert [axes.images[0].get_clim() for axes in figure.axes[1:3]] == [(0, 2), (0, 2)]


@pytest.mark.parametrize("colours", ["viridis", "gray", "RdBu_r"])
def test_the_tumour_is_outlined_on_slice_and_maps_and_a_slice_without_has_no_outline(patient, network, colours):
    images, tumours = patient
    features, _ = network
    with_tumour = looks.beside_slice(images[2], tumours[2], {"a": features[2, 3][0]}, colours=colours)
    without = looks.beside_slice(images[0], tumours[0], {"a": features[0, 3][0]}, colours=colours)

    assert outlined(with_tumour) == [True, True]
    assert outlined(without) == [False, False]


def test_the_outline_on_a_coarse_map_lies_where_the_tumour_is(patient, network):
    images, tumours = patient
    features, _ = network
    figure = looks.beside_slice(images[3], tumours[3], {"a": features[3, 4][0]})
    (line,) = [part for part in figure.axes[1].collections if isinstance(part, QuadContourSet)]
    corners = np.concatenate([path.vertices for path in line.get_paths()])

    # Rows 10 to 30 and columns 15 to 35 are set; pixel r covers r to r + 1 of the map.
    np.testing.assert_allclose(corners.min(axis=0), (15, 10), atol=0.01)
    np.testing.assert_allclose(corners.max(axis=0), (36, 31), atol=0.01)


def test_the_bars_are_the_knobs_in_order_and_the_title_names_the_channels(patient):
    images, tumours = patient
    knobs = np.array([0.2, 0.9, 0.5, 0.7, 0.1, 0.6, 0.3, 0.4])
    figure = looks.channel_knobs(images[1], tumours[1], {"trained": knobs, "half": np.full(8, 0.5)})
    rows = [axes for axes in figure.axes if axes.patches]

    assert [bar.get_height() for bar in rows[0].patches] == sorted(knobs, reverse=True)
    assert rows[0].get_title() == "trained: most open 1, 3, 5, 2, most closed 4, 0, 6, 7"
    assert rows[1].get_title() == "half: most open 0, 1, 2, 3, most closed 7, 6, 5, 4"


def test_the_open_stand_above_and_the_closed_below_each_with_its_number_and_its_knob(patient, network):
    images, tumours = patient
    features, knobs = network
    figure = looks.open_and_closed(images[2], tumours[2], features[2, 1], knobs[2, 1], count=2)
    order = np.argsort(-knobs[2, 1])
    chosen = [*order[:2], *order[-2:]]

    titles = [axes.get_title() for axes in figure.axes if axes.get_title().startswith("channel")]
    assert titles == [f"channel {channel}: knob {knobs[2, 1][channel]:.2f}" for channel in chosen]
    for array, channel in zip(maps_drawn(figure)[1:], chosen, strict=True):
        np.testing.assert_array_equal(array, features[2, 1][channel])


def test_equal_knobs_keep_the_order_of_their_channels():
    assert looks.by_openness(np.array([0.5, 0.7, 0.5, 0.5, 0.7])) == [1, 4, 0, 2, 3]


@pytest.mark.parametrize("stages", [(1,), (1, 4), (1, 2, 3, 4)])
def test_two_slices_stand_beside_a_point_for_each_channel_of_each_stage(patient, network, stages):
    images, tumours = patient
    _, knobs = network
    calm, sick = ({stage: knobs[number, stage] for stage in stages} for number in (0, 3))
    slices = {"least tumour": (images[0], tumours[0]), "most tumour": (images[3], tumours[3])}
    figure = looks.knobs_of_two(slices, (calm, sick))
    points = [np.asarray(part.get_offsets()) for part in figure.axes[2].collections]

    assert [axes.get_title() for axes in figure.axes[:2]] == list(slices)
    assert outlined(figure) == [False, True]
    assert [figure.axes[2].get_xlabel(), figure.axes[2].get_ylabel()] == ["knob, least tumour", "knob, most tumour"]
    for drawn, stage in zip(points, stages, strict=True):
        np.testing.assert_allclose(drawn, np.stack([calm[stage], sick[stage]], axis=1))
