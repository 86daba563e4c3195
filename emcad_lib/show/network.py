"""PVT-EMCAD as a drawing: a trace in, a Figure out. What the boxes are called stands in the trace, not here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from emcad_lib.files import CourseError
from emcad_lib.show.plots import COLOURS


def _short(value: float, unit: str) -> str:
    """A number with as many digits as one can use."""
    digits = 0 if value == 0 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f} {unit}"


# What can be shown in the boxes -> the column behind it, how it's written, what the colours mean.
QUANTITIES: dict[str, tuple[str, Callable[[float], str], str]] = {
    "shape": ("output MB", lambda value: _short(value, "MB"), "size of the output"),
    "parameters": ("parameters", lambda value: f"{value:,.0f}", "parameters"),
    "multiply-adds": ("multiply-adds", lambda value: _short(value / 1e6, "M"), "multiply-adds (million)"),
    "kept MB": ("kept MB", lambda value: _short(value, "MB"), "kept for the backward pass"),
}
EDGES = {"MSCAM": COLOURS["blue"], "EUCB": COLOURS["orange"], "LGAG": COLOURS["green"]}  # of boxes, by block
SHADES = LinearSegmentedColormap.from_list("white to blue", ["white", COLOURS["blue"]])

# Where things stand, in inches: columns from left to right, and one row for each stage, the finest on top.
ENCODER, LIFT, GATE, SUM, REFINE, HEAD, MAP = 1.15, 3.45, 3.85, 5.4, 7.1, 9.35, 10.5
WIDTH, HEIGHT = 11.0, 8.2
BOX = {"width": 1.75, "height": 0.54}
WHITE_INK_FROM = 0.9  # of the way from white to blue: only on the darkest boxes does white read better than black


def draw_network(parts: pd.DataFrame, quantity: str = "shape", title: str = "") -> Figure:
    """A network of EMCAD's plan: the encoder on the left, going down; the decoder on the right, going up.

    Args:
        parts: what `emcad_lib.model.trace.trace` gives: names, blocks, stages and numbers.
        quantity: a key of ``QUANTITIES``: what stands below each name, and decides how dark the box is.
        title: above the drawing.

    Raises:
        CourseError: for an unknown quantity, or a network of another plan.
    """
    if quantity not in QUANTITIES:
        raise CourseError(f"There is no quantity {quantity!r} to draw. Choose one of: {', '.join(QUANTITIES)}.")
    drawing = _Drawing(parts, quantity)
    encoder, decoder, heads = (drawing.by_stage(prefix) for prefix in ("encoder.", "decoder.", "heads."))
    for stage in (1, 2, 3, 4):
        _draw_stage(drawing, stage, encoder, decoder, heads)
    _draw_input(drawing, encoder)
    _draw_shared(drawing)
    if homeless := sorted(set(drawing.parts.index[drawing.parts["stage"].notna()]) - drawing.drawn):
        raise CourseError(
            f"The drawing has no place for {', '.join(homeless)}: draw a PVTEMCAD, as create_model makes it."
        )
    drawing.colour_bar()
    drawing.figure.suptitle(title, y=0.985)
    return drawing.figure


class _Drawing:
    """An empty sheet, with the means to put boxes, arrows and words on it."""

    def __init__(self, parts: pd.DataFrame, quantity: str) -> None:
        column, self.write, self.label = QUANTITIES[quantity]
        self.parts = parts.drop(index="sum", errors="ignore")
        self.quantity, self.values = quantity, self.parts[column]
        # By the square root: in proportion, most parts would be white beside the encoder's.
        self.norm = PowerNorm(0.5, vmin=0, vmax=float(self.values.max()))
        self.figure = Figure(figsize=(WIDTH, HEIGHT))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
        self.axes.set_axis_off()
        self.drawn: set[str] = set()

    def by_stage(self, prefix: str) -> dict[tuple[str, int], str]:
        """The names of parts, by block and stage; the encoder's and the heads' are blocks of no special name."""
        chosen = self.parts[self.parts.index.str.startswith(prefix) & self.parts["stage"].notna()]
        return {
            (block if prefix == "decoder." else "", int(stage)): str(name)
            for name, block, stage in zip(chosen.index, chosen["block"], chosen["stage"], strict=True)
        }

    def box(self, name: str, x: float, y: float, width: float = BOX["width"], note: str = "") -> None:
        """A part: its name, and below it the quantity, or a note where it has none."""
        value = self.parts["shape"][name] if self.quantity == "shape" else self.write(float(self.values[name]))
        shade = float(self.norm(float(self.values[name])))
        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - BOX["height"] / 2),
                width,
                BOX["height"],
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=SHADES(shade),
                edgecolor=EDGES.get(str(self.parts["block"][name]), COLOURS["black"]),
                linewidth=2,
                zorder=2,
            )
        )
        ink = "white" if shade > WHITE_INK_FROM else "black"
        self.words(name, x, y + 0.12, color=ink, fontweight="bold")
        self.words(note or value, x, y - 0.12, color=ink)
        self.drawn.add(name)

    def words(self, text: str, x: float, y: float, **style: Any) -> None:
        """A line of text around a point."""
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "zorder": 3} | style
        self.axes.text(x, y, text, **look)

    def line(self, *points: tuple[float, float], arrow: bool = True) -> None:
        """A line through points, with an arrow's head at its end."""
        *way, last = points
        if len(way) > 1:
            self.axes.plot(*zip(*way, strict=True), color="0.35", linewidth=1.3, zorder=1, solid_capstyle="round")
        style = {"arrowstyle": "-|>" if arrow else "-", "color": "0.35", "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", xy=last, xytext=way[-1], arrowprops=style, zorder=1)

    def plus(self, x: float, y: float) -> None:
        """A circle with a plus sign in it."""
        self.axes.plot(x, y, "o", markersize=17, markerfacecolor="white", markeredgecolor="0.35", zorder=2)
        self.words("+", x, y, fontsize=12)

    def colour_bar(self) -> None:
        """What the colours mean, at the bottom."""
        place = self.figure.add_axes((0.56, 0.062, 0.4, 0.018))
        bar = self.figure.colorbar(ScalarMappable(self.norm, SHADES), cax=place, orientation="horizontal")
        bar.set_label(f"{self.label} (square-root scale)", fontsize=9)
        high = float(self.values.max())
        ticks = [0, high / 16, high / 4, high]
        bar.set_ticks(ticks, labels=[self.write(tick) for tick in ticks])
        bar.ax.tick_params(labelsize=8)


def _row(stage: int) -> float:
    """The height of a stage's row; between two rows stands an EUCB."""
    return HEIGHT - 0.15 - 1.55 * stage


def _draw_stage(
    drawing: _Drawing,
    stage: int,
    encoder: dict[tuple[str, int], str],
    decoder: dict[tuple[str, int], str],
    heads: dict[tuple[str, int], str],
) -> None:
    """A row of the drawing, and in the decoder what leads up to it from the row below."""
    y, half = _row(stage), BOX["width"] / 2
    try:
        stage_name, refine, head = encoder["", stage], decoder["MSCAM", stage], heads["", stage]
        up = decoder["EUCB", stage] if stage < 4 else ""
    except KeyError as error:
        block, number = error.args[0]
        raise CourseError(
            f"The drawing needs an encoder's stage, an MSCAM and a head at stages 1 to 4, and an EUCB at 1 to 3. "
            f"At stage {number} this network has no {block or 'encoder or head'}: draw a PVTEMCAD."
        ) from error
    drawing.box(stage_name, ENCODER, y)
    drawing.box(refine, REFINE, y)
    drawing.box(head, HEAD, y, width=1.25)
    drawing.words(f"X{stage}", ENCODER + half + 0.25, y + 0.14)
    drawing.words(f"d{stage}", REFINE + half + 0.22, y + 0.14)
    drawing.line((REFINE + half, y), (HEAD - 0.625, y))
    drawing.line((HEAD + 0.625, y), (MAP - 0.16, y))
    drawing.words(f"p{stage}", MAP, y, fontweight="bold")
    drawing.words("logits", MAP, y - 0.2, fontsize=8)
    if stage == 4:
        drawing.line((ENCODER + half, y), (REFINE - half, y))
        return
    below = _row(stage + 1)
    between = (y + below) / 2
    drawing.line((ENCODER, y - BOX["height"] / 2), (ENCODER, below + BOX["height"] / 2))
    drawing.box(up, REFINE, between)
    drawing.line((REFINE, below + BOX["height"] / 2), (REFINE, between - BOX["height"] / 2))
    gate = decoder.get(("LGAG", stage))
    if gate is None:  # a decoder without gates adds the skip connection as it is
        drawing.line((ENCODER + half, y), (SUM - 0.13, y))
    else:
        drawing.box(gate, GATE, y)
        drawing.line((ENCODER + half, y), (GATE - half, y))
        drawing.line((GATE + half, y), (SUM - 0.13, y))
        drawing.line((SUM, between), (GATE, between), (GATE, y - BOX["height"] / 2))
    drawing.line((REFINE - half, between), (SUM, between), (SUM, y - 0.13))
    drawing.words(f"u{stage}", (SUM + REFINE - half) / 2, between + 0.14)
    drawing.plus(SUM, y)
    drawing.line((SUM + 0.13, y), (REFINE - half, y))


def _draw_input(drawing: _Drawing, encoder: dict[tuple[str, int], str]) -> None:
    """The slice above the encoder, and what lifts it to three channels where there is such a part."""
    first = encoder["", 1]
    stride = int(drawing.parts["stride"][first])
    height, width = (int(side) * stride for side in drawing.parts["shape"][first].split(" x ")[1:])
    top = _row(1) + 1.0
    if "lift" in drawing.parts.index:
        drawing.box("lift", LIFT, top, width=1.25)
        drawing.line((ENCODER + 0.75, top), (LIFT - 0.625, top))
        drawing.line((LIFT, top), (LIFT, top - 0.5), (ENCODER, top - 0.5), (ENCODER, _row(1) + BOX["height"] / 2))
    else:
        drawing.line((ENCODER, top - 0.12), (ENCODER, _row(1) + BOX["height"] / 2))
    drawing.words(f"slice {height} x {width}", ENCODER, top, fontweight="bold")


def _draw_shared(drawing: _Drawing) -> None:
    """The one SAB that works inside all four MSCAMs, below the encoder."""
    parts = drawing.parts
    for name in parts.index[(parts["block"] == "SAB") & parts["stage"].isna()]:
        drawing.box(name, ENCODER, 0.62, note="" if drawing.quantity == "parameters" else "works inside others")
        note = "one for all four MSCAMs; what it does is counted there"
        drawing.words(note, ENCODER + 1.0, 0.62, ha="left", fontstyle="italic")
