"""Pictures of gates, upsampling and heads: they show what they were given, whatever it is, and nothing else."""

import io
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet

from emcad_lib.show import decoding, plots

pytestmark = pytest.mark.filterwarnings("error")  # matplotlib warns of an outline of nothing

SIDE = 24
IMAGE = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
WHITE, ORANGE, SKY = "#ffffff", plots.COLOURS["orange"].lower(), plots.REGION_COLOURS["whole"].lower()


def square(low, high):
    """A mask (SIDE, SIDE) of a square."""
    mask = np.zeros((SIDE, SIDE), dtype=np.float32)
    mask[low:high, low:high] = 1
    return mask


TUMOURS = {"none": square(0, 0), "some": square(8, 16), "everywhere": square(0, SIDE)}


def values(side, seed=0):
    """A map of values from 0 to 1."""
    return np.random.default_rng(seed).random((side, side)).astype(np.float32)


def png(figure):
    """The figure's PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def outlines(axes):
    """The outlines in a picture: colour -> (lowest x, highest x, lowest y, highest y)."""
    found = {}
    for collection in axes.collections:
        if isinstance(collection, QuadContourSet):
            corners = np.concatenate([path.vertices for path in collection.get_paths()])
            (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
            found[to_hex(collection.get_edgecolor()[0])] = (left, right, top, bottom)
    return found


def pictures(figure):
    """The pictures of a figure by title, without colour bars: what each shows, and its outlines."""
    return {
        axes.get_title(): (np.asarray(axes.images[0].get_array()), outlines(axes))
        for axes in figure.axes
        if axes.images and axes.get_title()
    }


# ---- A gate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tumour", TUMOURS)
@pytest.mark.parametrize("side", [1, 6, 12, 24])
def test_a_gate_is_drawn_for_every_stage_with_and_without_a_tumour(side, tumour):
    asked, opening, offered = 20 * values(side, 1), values(side, 2), 5 * values(side, 3)
    figure = decoding.gate_at_work(IMAGE, TUMOURS[tumour], asked, opening, offered, "a gate")

    shown = pictures(figure)

    assert png(figure)
    assert list(shown) == [
        "FLAIR and tumour", "g: how strong it asks", "the gate", "offered: edges in x", "what passes",
    ]  # fmt: skip
    np.testing.assert_array_equal(shown["g: how strong it asks"][0], asked)
    np.testing.assert_array_equal(shown["the gate"][0], opening)
    bars = [axes.get_ylabel() for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert bars == ["length of g", "opening", "change of x", "opening x change"]
    np.testing.assert_array_equal(shown["offered: edges in x"][0], offered)
    np.testing.assert_allclose(shown["what passes"][0], opening * offered)
    assert all(bool(lines) == (tumour == "some") for _, lines in shown.values())


def test_what_is_offered_and_what_passes_have_one_scale_so_that_they_can_be_compared():
    offered = 5 * values(6)
    axes = decoding.gate_at_work(IMAGE, TUMOURS["some"], values(6), values(6, 2), offered).axes

    assert axes[3].images[0].get_clim() == axes[4].images[0].get_clim() == (0, offered.max())
    assert axes[2].images[0].get_clim() == (0, 1)


def test_a_gate_that_is_offered_nothing_is_drawn_too():
    assert png(decoding.gate_at_work(IMAGE, TUMOURS["some"], values(6), values(6), np.zeros((6, 6))))


def test_an_outline_lies_where_the_tumour_is_on_the_slice_and_on_coarser_maps():
    axes = decoding.gate_at_work(IMAGE, TUMOURS["some"], values(3), values(3), values(3)).axes

    assert outlines(axes[0])[SKY] == (7.5, 15.5, 7.5, 15.5)  # a pixel's centre has a whole number there
    assert outlines(axes[2])[WHITE] == (8, 16, 8, 16)  # and here its edges have


@pytest.mark.parametrize("tumour", TUMOURS)
def test_the_gates_of_two_networks_are_drawn_stage_by_stage(tumour):
    sides = {3: 6, 2: 12, 1: 24}
    networks = {
        name: {stage: (values(side, stage + seed), 5 * values(side, stage + seed + 9)) for stage, side in sides.items()}
        for seed, name in enumerate(("random weights", "trained weights"))
    }

    figure = decoding.gates_compared(IMAGE, TUMOURS[tumour], networks, "three gates")
    rows = np.array(figure.axes[:14]).reshape(2, 7)

    assert png(figure)
    for row, (name, gates) in zip(rows, networks.items(), strict=True):
        assert row[0].get_title() == name
        for place, stage in enumerate((3, 2, 1)):
            opening, offered = gates[stage]
            np.testing.assert_array_equal(row[1 + 2 * place].images[0].get_array(), opening)
            np.testing.assert_allclose(row[2 + 2 * place].images[0].get_array(), opening * offered)
            assert row[1 + 2 * place].get_title() == f"stage {stage}: opening"
            assert row[1 + 2 * place].images[0].get_clim() == (0, 1)
            assert row[2 + 2 * place].images[0].get_clim() == (0, offered.max())


# ---- Twice the size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tumour", TUMOURS)
@pytest.mark.parametrize("side", [1, 6, 12])
def test_a_channel_is_drawn_before_and_after_it_is_doubled(side, tumour):
    before, after, constant = values(side), values(2 * side), values(12) - 2
    figure = decoding.doubled(IMAGE, TUMOURS[tumour], before, after, constant, "bilinear", "channel 3")

    shown = pictures(figure)

    assert png(figure)
    np.testing.assert_array_equal(shown[f"before\n{side} x {side} places"][0], before)
    np.testing.assert_array_equal(shown[f"after: bilinear\n{2 * side} x {2 * side} places"][0], after)
    np.testing.assert_array_equal(shown["what it makes\nof a constant 1"][0], constant)
    assert figure.get_suptitle() == "channel 3"


# ---- Four heads ------------------------------------------------------------------------------------------------------

HEADS = {f"p{4 - number}": 0.12 + 0.76 * square(2 + number, 20 - number) for number in range(4)}


@pytest.mark.parametrize(
    ("head", "threshold", "tumour"),
    [
        *itertools.product(HEADS, (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95), ["some"]),
        *itertools.product(["p1"], (0.05, 0.5, 0.95), ["none", "everywhere"]),
    ],
)
def test_the_heads_are_drawn_for_every_head_and_threshold(head, threshold, tumour):
    figure = decoding.four_heads(IMAGE, TUMOURS[tumour], HEADS, head, threshold, "four heads")

    shown = pictures(figure)

    assert list(shown) == [f"FLAIR and {head}", *HEADS]
    for name, (array, lines) in list(shown.items())[1:]:
        np.testing.assert_array_equal(array, HEADS[name])
        assert (WHITE in lines) == (tumour == "some")
        assert (ORANGE in lines) == (0.12 < threshold < 0.88)  # at the others all of it is tumour, or nothing


def test_the_slice_carries_the_outline_of_the_chosen_head():
    for number, head in enumerate(HEADS):
        lines = outlines(decoding.four_heads(IMAGE, TUMOURS["some"], HEADS, head, 0.5).axes[0])

        assert lines[ORANGE] == pytest.approx((1.5 + number, 19.5 - number) * 2, abs=0.5)
        assert lines[WHITE] == (7.5, 15.5, 7.5, 15.5)


# ---- All of them -----------------------------------------------------------------------------------------------------

OPENING, OFFERED = values(6, 1), values(6, 2)
DRAWN = {
    "gate_at_work": lambda tumour: decoding.gate_at_work(IMAGE, tumour, values(6), OPENING, OFFERED),
    "gates_compared": lambda tumour: decoding.gates_compared(IMAGE, tumour, {"one": {1: (OPENING, OFFERED)}}),
    "doubled": lambda tumour: decoding.doubled(IMAGE, tumour, values(6), values(12), values(9), "nearest"),
    "four_heads": lambda tumour: decoding.four_heads(IMAGE, tumour, HEADS, "p2", 0.5),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_arguments_give_the_same_picture_and_others_another(name):
    one, other = square(8, 16), square(4, 16)
    first, second = png(DRAWN[name](one)), png(DRAWN[name](other))

    assert first != second
    assert png(DRAWN[name](one)) == first  # nothing is left over from the picture in between


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_handed_over_is_left_as_it_was(name):
    arrays = [IMAGE, OPENING, OFFERED, *HEADS.values(), tumour := square(8, 16)]
    before = [array.copy() for array in arrays]

    png(DRAWN[name](tumour))

    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
