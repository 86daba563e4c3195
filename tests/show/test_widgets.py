"""A widget shows what its function draws for the values of its controls, and shows its errors."""

import itertools

import numpy as np
import pytest
from ipywidgets import Image
from matplotlib.figure import Figure

from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.labels import REGIONS
from emcad_lib.show import plots, widgets


def parts(widget):
    """The controls, the picture and the line below it."""
    controls, picture, message = widget.children
    return controls.children, picture, message


def draw_bar(height):
    return plots.bars({"bar": height}, "height")


def test_the_picture_is_there_before_anything_moves():
    _, picture, message = parts(widgets.interactive(draw_bar, "A bar.", height=widgets.slider("height", 1, 9, 5)))

    assert isinstance(picture, Image)
    assert bytes(picture.value).startswith(b"\x89PNG")
    assert "A bar." in message.value


def test_the_picture_keeps_its_size_so_that_its_controls_stay_on_the_screen_with_it():
    _, picture, _ = parts(widgets.interactive(draw_bar, "A bar.", height=widgets.slider("height", 1, 9, 5)))

    assert picture.layout.align_self == "flex-start"  # or else the box stretches it to the width of the page
    assert picture.layout.max_width == "100%"
    assert picture.layout.margin == "0"  # or else a wide picture and its margins get a scroll bar


def test_the_picture_follows_the_control():
    (slider,), picture, _ = parts(widgets.interactive(draw_bar, "A bar.", height=widgets.slider("height", 1, 9, 5)))
    at_5 = picture.value

    slider.value = 6
    at_6 = picture.value
    slider.value = 5

    assert at_6 != at_5
    assert picture.value == at_5


def test_each_control_sets_the_argument_of_its_name():
    calls = []

    def render(**values):
        calls.append(values)
        return Figure()

    (left, right), _, _ = parts(
        widgets.interactive(
            render, "", left=widgets.slider("a", 0, 9, 1), right=widgets.choice("b", {"one": 1, "two": 2}, value=2)
        )
    )
    left.value = 3
    right.label = "one"

    assert calls == [{"left": 1, "right": 2}, {"left": 3, "right": 2}, {"left": 3, "right": 1}]


def test_an_error_is_shown_and_raised_and_goes_away_with_the_next_picture():
    def render(number):
        if number == 2:
            raise ValueError("there is no slice <2>")
        return Figure()

    (slider,), _, message = parts(widgets.interactive(render, "A slice.", number=widgets.slider("slice", 0, 3, 1)))

    with pytest.raises(ValueError, match="there is no slice"):
        slider.value = 2
    assert "ValueError" in message.value
    assert "there is no slice &lt;2&gt;" in message.value  # as text: a browser would take <2> for a tag

    slider.value = 3
    assert "ValueError" not in message.value


def test_an_error_in_the_first_picture_stops_the_cell():
    with pytest.raises(KeyError):
        widgets.interactive(lambda number: {}["gone"], "", number=widgets.slider("slice", 0, 3, 1))


def test_a_slider_goes_from_low_to_high_in_steps():
    slider = widgets.slider("threshold", 5, 95, 50, step=5)

    assert (slider.description, slider.min, slider.max, slider.value, slider.step) == ("threshold", 5, 95, 50, 5)
    assert not slider.continuous_update  # one picture for each move, not one for each pixel that the mouse moves


def test_a_menu_shows_names_and_gives_values_and_starts_with_the_first():
    menu = widgets.choice("batch", {"six": 6, "sixteen": 16})
    assert (menu.label, menu.value) == ("six", 6)
    assert widgets.choice("batch", [6, 16]).label == "6"
    assert widgets.choice("batch", [6, 16], value=16).value == 16


@pytest.fixture
def patient():
    """Images (5, 4, 20, 30) and region bits (5, 20, 30): slice 3 has most tumour, slice 0 none."""
    images = np.random.default_rng(0).normal(size=(5, 4, 20, 30)).astype(np.float32)
    regions = np.zeros((5, 20, 30), dtype=np.uint8)
    for number, side in enumerate((0, 2, 4, 12, 6)):
        regions[number, 4 : 4 + side, 6 : 6 + side] = 1
        regions[number, 4 : 4 + side // 2, 6 : 6 + side // 2] = 7
    return images, regions


def test_the_slice_explorer_starts_at_the_slice_with_most_tumour(patient):
    (modality, plane, number, outline, window), _, _ = parts(widgets.explore_slices(*patient, MODALITIES))

    assert (modality.value, plane.value, number.value, outline.value) == ("flair", "axial", 3, REGIONS)
    assert window.value == (-2.5, 4.0)
    assert (number.min, number.max) == (0, 4)


def test_the_slice_explorer_draws_every_value_of_every_control(patient):
    (modality, plane, number, outline, window), picture, message = parts(widgets.explore_slices(*patient, MODALITIES))
    seen = {}

    def look(*place):
        seen[place] = bytes(picture.value)
        assert "Error" not in message.value

    for name, (cut, slices) in itertools.product(MODALITIES, {"axial": 5, "coronal": 20, "sagittal": 30}.items()):
        modality.value, plane.value = name, cut
        assert number.max == slices - 1
        for number.value in range(slices) if name == "t1" else (0, slices - 1):
            look(name, cut, number.value)
    plane.value = "coronal"
    for outline.index, window.index in itertools.product(range(3), range(3)):
        look(outline.value, window.value)

    assert len(set(seen.values())) == len(seen) == 3 * 3 * 2 + 5 + 20 + 30 + 9


def test_the_slice_explorer_goes_to_the_slice_with_most_tumour_of_another_plane(patient):
    (_, plane, number, _, _), picture, _ = parts(widgets.explore_slices(*patient, MODALITIES))

    number.value = 4
    plane.value = "sagittal"  # columns 6 to 17 hold tumour, the first of them the most
    assert number.value == 6
    before = bytes(picture.value)
    number.value = 29
    plane.value = "axial"  # which has no slice 29
    assert (number.value, number.max) == (3, 4)
    plane.value = "sagittal"
    assert bytes(picture.value) == before


def test_the_slice_explorer_shows_the_slice_that_it_says(patient, monkeypatch):
    images, regions = patient
    shown = []

    def spy(image, bits, title, window, outline):
        shown.append((image, bits, title, window, outline))
        return Figure()

    monkeypatch.setattr(plots, "slice_view", spy)
    (modality, plane, number, _, _), _, _ = parts(
        widgets.explore_slices(images, regions, ["flair", "t1", "t1ce", "t2"])
    )
    number.value = 2
    modality.value = "t1ce"

    image, bits, title, window, outline = shown[-1]
    np.testing.assert_array_equal(image, images[2, 2])
    np.testing.assert_array_equal(bits, regions[2])
    assert title == "T1ce, axial slice 2 of 4"
    assert (window, outline) == ((-2.5, 4.0), REGIONS)

    plane.value = "coronal"
    number.value = 7
    image, bits, title, _, _ = shown[-1]
    np.testing.assert_array_equal(image, images[::-1, 2, 7])  # the top of the head is the top row
    np.testing.assert_array_equal(bits, regions[::-1, 7])
    assert title == "T1ce, coronal slice 7 of 19"
