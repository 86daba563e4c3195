"""The drawing of the network: every part under its own name, its number below, nothing on top of anything else."""

import itertools
import re

import matplotlib.colors
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch

from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import create_model
from emcad_lib.model.trace import trace
from emcad_lib.show.network import QUANTITIES, draw_network

NAME = re.compile(r"(lift|encoder|decoder|heads)(\.\w+)*")


def traced(encoder="pvt_v2_b0", size=64, **settings):
    channels = settings.get("in_channels", 3)
    return trace(create_model(encoder, **settings), torch.zeros(1, channels, size, size))


@pytest.fixture(scope="module")
def parts():
    """PVT-EMCAD-B0 on one slice of 224 px."""
    return traced(size=224)


def words(figure):
    """All text of a figure, as it's drawn."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    drawn = [text for text in figure.findobj(lambda thing: hasattr(thing, "get_text")) if text.get_text().strip()]
    return {text: text.get_window_extent(renderer) for text in drawn if text.get_visible()}


def boxes(figure):
    """Name -> (value, box), by what is written in each box."""
    (axes, *_) = figure.axes
    found = {}
    for patch in axes.patches:
        if isinstance(patch, FancyBboxPatch):
            x, y, width, height = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
            inside = [
                text.get_text()
                for text in sorted(axes.texts, key=lambda text: -text.get_position()[1])
                if text.get_text()
                and x < text.get_position()[0] < x + width
                and y < text.get_position()[1] < y + height
            ]
            found[inside[0]] = (inside[1], patch)
    return found


def lies_in(inner, outer):
    across = outer.x0 <= inner.x0 <= inner.x1 <= outer.x1
    return across and outer.y0 <= inner.y0 <= inner.y1 <= outer.y1


def test_every_part_is_drawn_once_under_its_name_in_the_code(parts):
    model = create_model()
    written = [text.get_text() for text in words(draw_network(parts))]
    names = [name for name in written if NAME.fullmatch(name)]

    assert sorted(names) == sorted(parts.index.drop("sum"))
    assert set(names) <= {name for name, _ in model.named_modules()}
    assert {f"decoder.{name}" for name, _ in model.decoder.named_children()} <= set(names)
    assert {f"{letter}{stage}" for letter in "Xdp" for stage in (1, 2, 3, 4)} <= set(written)
    assert {"u1", "u2", "u3", "slice 224 x 224"} <= set(written)
    assert written.count("logits") == 4  # below each p


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_bar_says_that_its_scale_is_a_square_root(parts, quantity):
    (label,) = [text.get_text() for text in words(draw_network(parts, quantity)) if "scale" in text.get_text()]
    assert label == f"{QUANTITIES[quantity][2]} (square-root scale)"


def test_another_name_in_the_code_is_another_name_in_the_drawing(parts):
    renamed = boxes(draw_network(parts.rename(index={"decoder.mscam2": "decoder.polish2"})))

    assert renamed["decoder.polish2"][0] == boxes(draw_network(parts))["decoder.mscam2"][0]
    assert "decoder.mscam2" not in renamed


@pytest.mark.parametrize(
    ("quantity", "mscam1", "stage4", "head"),
    [
        ("shape", "32 x 56 x 56", "256 x 7 x 7", "1 x 56 x 56"),
        ("parameters", "7,040", "1,969,920", "33"),
        ("multiply-adds", "20.2 M", "96.0 M", "0.10 M"),
        ("kept MB", "9.2 MB", "2.1 MB", "0.38 MB"),
    ],
)
def test_the_number_of_each_part_stands_in_its_box(parts, quantity, mscam1, stage4, head):
    drawn = boxes(draw_network(parts, quantity))
    found = [drawn[name][0] for name in ("decoder.mscam1", "encoder.stages_3", "heads.3")]
    assert found == [mscam1, stage4, head]
    assert drawn["decoder.sab"][0] == ("98" if quantity == "parameters" else "works inside others")


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_larger_the_number_the_darker_the_box(parts, quantity):
    drawn = boxes(draw_network(parts, quantity))
    values = parts["output MB" if quantity == "shape" else quantity].drop("sum")
    red = {name: matplotlib.colors.to_rgb(patch.get_facecolor())[0] for name, (_, patch) in drawn.items()}

    for one, other in itertools.combinations(values.index, 2):
        if values[one] >= 1.5 * values[other]:
            assert red[one] <= red[other], (one, other)
    assert red[values.idxmax()] == 0  # the blue of the course, which has no red
    assert red[values.idxmin()] > 0.95


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"encoder": "pvt_v2_b2", "in_channels": 1}, {"encoder": "resnet18", "num_classes": 3, "size": 512}],
    ids=["b0", "b2", "resnet18"],
)
def test_no_words_touch_and_all_lie_on_the_sheet_and_in_their_boxes(quantity, settings):
    figure = draw_network(traced(**settings), quantity, title="A title that is rather long, for a network of some size")
    placed = words(figure)

    for (one, here), (other, there) in itertools.combinations(placed.items(), 2):
        assert not here.overlaps(there), (one.get_text(), other.get_text())
    for text, extent in placed.items():
        assert lies_in(extent, figure.bbox), text.get_text()
    frames = [patch.get_window_extent() for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    for text, extent in placed.items():
        for frame in frames:
            assert lies_in(extent, frame) or not frame.overlaps(extent), text.get_text()
    assert not any(one.overlaps(other) for one, other in itertools.combinations(frames, 2))


def test_the_sheet_is_as_wide_as_a_page_and_nothing_else_is_left_open(parts):
    figure = draw_network(parts)
    assert 10 <= figure.get_figwidth() <= 11
    assert [text.get_text() for text in figure.texts] == [""]  # no title unless one is given


def test_words_read_on_every_shade(parts):
    for quantity in QUANTITIES:
        figure = draw_network(parts, quantity)
        for name, (_, patch) in boxes(figure).items():
            (text,) = [text for text in figure.axes[0].texts if text.get_text() == name]
            light, dark = sorted((luminance(text.get_color()), luminance(patch.get_facecolor())), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 4.5, (quantity, name)  # the web's rule for small text


def luminance(colour):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def test_without_gates_the_skip_connections_are_drawn_without_them(parts):
    drawn = boxes(draw_network(parts.drop(index=[f"decoder.lgag{stage}" for stage in (1, 2, 3)])))
    assert "decoder.lgag2" not in drawn
    assert "decoder.mscam2" in drawn


def test_an_unknown_quantity_is_refused_with_those_that_there_are(parts):
    with pytest.raises(CourseError, match="no quantity 'seconds'.*shape, parameters, multiply-adds, kept MB"):
        draw_network(parts, "seconds")


def test_a_network_of_another_plan_is_refused(parts):
    with pytest.raises(CourseError, match="At stage 3 this network has no MSCAM"):
        draw_network(parts.drop(index="decoder.mscam3"))
    with pytest.raises(CourseError, match="At stage 4 this network has no encoder or head"):
        draw_network(parts.drop(index="heads.0"))
    with pytest.raises(CourseError, match="no place for decoder.extra2, .*: draw a PVTEMCAD"):
        draw_network(parts.rename(index={"decoder.lgag2": "decoder.extra2"}).replace({"block": {"LGAG": "Extra"}}))
