"""The widgets of the notebooks work where readers meet them: in JupyterLab, in a browser, by the keyboard.

A notebook is run there from top to bottom. A cell at its end, which isn't in the notebook, sets the controls of every
widget to all combinations of their values; where those are more than fifty, every control to all its values, and
all controls to all combinations of their ends. Then every control is moved by its keys until the picture changes, and
back until the first one is there again. Slower than all that papermill tells, but papermill has no page and no keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import Browser, BrowserError, BrowserTimeout, Lab, Tab, chromium, find_browser, jupyterlab, wait_for
from matplotlib.figure import Figure

from emcad_lib.show import widgets

pytestmark = [
    pytest.mark.skipif(
        find_browser() is None,
        reason="There is no Chromium or Chrome on the path. Install one: apt install chromium, or google.com/chrome.",
    ),
    pytest.mark.timeout(1200),  # so that the limits below come first, which tell what is wrong
]

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("[01]*.ipynb"))

OPEN_SECONDS = 240
RUN_SECONDS = 900  # of a whole notebook, on a machine that is busy with other tests
MOVE_SECONDS = 10
DRAW_SECONDS = 60
SHOW_SECONDS = 3  # from the end of the kernel's work to the picture in the page
PRESSES = 3  # two slices side by side may look the same, three don't

# What the page is asked. ``lesson`` is the notebook's panel in JupyterLab.
IS_READY = """() => {
    const lesson = globalThis.jupyterapp?.shell?.currentWidget;
    return Boolean(lesson?.context?.isReady && lesson.sessionContext?.isReady && lesson.sessionContext.session?.kernel);
}"""
RUN_ALL = """() => {
    globalThis.lesson = jupyterapp.shell.currentWidget;
    globalThis.heard = {answers: 0, errors: [], ended: false};
    lesson.sessionContext.iopubMessage.connect((_, {header, parent_header, content}) => {
        const answered = content.execution_state === "idle" && parent_header.msg_type === "comm_msg";
        if (answered) heard.answers += 1;
        if (header.msg_type === "error") heard.errors.push(`${content.ename}: ${content.evalue}`);
        if (header.msg_type === "stream" && content.name === "stderr") heard.errors.push(content.text);
    });
    jupyterapp.commands.execute("notebook:run-all-cells").finally(() => { heard.ended = true; });
}"""
CELLS = """() => lesson.content.widgets.filter(cell => cell.model.type === "code").map(({model}) => ({
    source: model.sharedModel.source,
    ran: model.executionCount !== null,
    isWidget: (model.getMetadata("tags") ?? []).includes("widget"),
    bad: model.outputs.toJSON()
        .filter(output => output.output_type === "error" || output.name === "stderr")
        .map(output => output.ename ? `${output.ename}: ${output.evalue}` : [output.text].flat().join("")),
}))"""
WIDGETS = """() => {
    globalThis.pictures = [...lesson.node.querySelectorAll("img.emcad-picture")];
    globalThis.rows = pictures.map(picture => [...picture.parentElement.firstElementChild.children]);
    return rows.map(each => each.map(row => row.querySelector(".widget-label")?.textContent ?? "unnamed"));
}"""
# A handle for a slider, a select for a menu, nothing for what has neither or several.
CONTROL = """
    const found = rows[widget][number].querySelectorAll("select, .noUi-handle");
    const control = found.length === 1 ? found[0] : null;
"""
KIND = f"""(widget, number) => {{
    {CONTROL}
    if (!control || control.multiple) return null;
    return control.matches("select") ? "menu" : "slider";
}}"""
FOCUS = f"""(widget, number) => {{
    {CONTROL}
    control.scrollIntoView({{block: "center"}});
    control.focus();
    const [at, end] = control.matches("select")
        ? [control.selectedIndex, control.options.length - 1]
        : [Number(control.ariaValueNow), Number(control.ariaValueMax)];
    return {{isFocused: document.activeElement === control, isAtEnd: at >= end}};
}}"""
STATE = f"""async (widget, number) => {{
    {CONTROL}
    const picture = pictures[widget];
    let bytes = null;  // of a picture that can be seen; while it is exchanged there is none
    if (picture.isConnected && picture.complete && picture.naturalWidth && picture.offsetWidth) {{
        try {{
            const hash = await crypto.subtle.digest("SHA-256", await (await fetch(picture.src)).arrayBuffer());
            bytes = [...new Uint8Array(hash)].map(byte => byte.toString(16).padStart(2, "0")).join("");
        }} catch {{}}
    }}
    return {{
        value: control.matches("select") ? control.selectedOptions[0].text : control.ariaValueText,
        picture: bytes,
        message: picture.nextElementSibling?.querySelector(".widget-html-content")?.innerHTML ?? "",
        answers: heard.answers,
        errors: heard.errors,
        isIdle: lesson.sessionContext.session.kernel.status === "idle",
    }};
}}"""


# Runs in the notebook's kernel, behind its own cells. Out is what they have shown. The page hears of it in the end:
# all that is proven here is proven in the kernel, and a page lays itself out anew for each picture.
# For all that is tried the figure is built, with whatever has to be computed for it. Layout and painting take longer
# than that: painted is what differs from the first in one control only, a menu, or a slider at one of its ends.
SWEEP = """\
import contextlib
import gc
import itertools
import math
from unittest import mock

import ipywidgets
from matplotlib.figure import Figure

paint = Figure.savefig
figures = 0
is_painted = False


def save(figure, file, **settings):
    global figures
    figures += 1
    if is_painted:
        paint(figure, file, **settings)


def values(control):
    if isinstance(control, ipywidgets.Dropdown):
        return [value for _, value in control._options_full]
    return list(range(control.min, control.max + 1, control.step))


def combinations(controls, at_first):
    every = [values(control) for control in controls]
    if math.prod(map(len, every)) <= 50:
        yield from itertools.product(*every)
        return
    for number, one in enumerate(every):
        yield from ([*at_first[:number], value, *at_first[number + 1 :]] for value in one)
    ends = [[one[0], one[-1]] for one in every]
    yield [one[0] for one in ends]
    for number in range(1, 2 ** len(ends)):  # as a Gray code: one control moves at a time
        ends[(number & -number).bit_length() - 1].reverse()
        yield [one[0] for one in ends]


def try_out(widget):
    global is_painted
    box, picture, _ = widget.children
    controls = box.children
    at_first = [control.value for control in controls]
    first_picture = picture.value

    def put(control, value):
        global is_painted
        state = [(each, value if each is control else each.value) for each in controls]
        moved = [(each, now) for (each, now), then in zip(state, at_first) if now != then]
        is_painted = len(moved) < 2 and all(
            isinstance(each, ipywidgets.Dropdown) or now in (each.min, each.max) for each, now in moved
        )
        before, problem = figures, ""
        try:
            control.value = value
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem or figures == before:
            said = ", ".join(f"{each.description}={each.value}" for each in controls)
            failed.append(f"{said}: {problem or 'no figure'}")

    for wanted in [*combinations(controls, at_first), at_first]:
        for control, value in zip(controls, wanted):
            if not isinstance(control, ipywidgets.Dropdown):
                value = min(value, control.max)  # another control may have moved its end
            if control.value != value:
                put(control, value)
    picture.value = first_picture


failed = []
thresholds = gc.get_threshold()
gc.set_threshold(50_000, 20, 50)  # to look for cycles among a million objects takes a fifth of the time otherwise
for shown in [value for value in Out.values() if isinstance(value, ipywidgets.VBox)]:
    with contextlib.ExitStack() as silence:
        silence.enter_context(mock.patch.object(Figure, "savefig", save))
        for part in (*shown.children[0].children, *shown.children[1:]):
            silence.enter_context(part.hold_sync())
        try_out(shown)
gc.set_threshold(*thresholds)
assert not failed, "; ".join(dict.fromkeys(failed))
"""
# With names of its own. It must not overwrite the notebook's, from which the widgets draw.
SWEEP_CELL = f"""# every control, to all its values
exec({SWEEP!r}, {{"Out": Out}})"""


class Control:
    """A slider or a menu on the page: control ``number`` of widget ``widget``."""

    def __init__(self, tab: Tab, widget: int, number: int) -> None:
        self._tab = tab
        self._place = (widget, number)

    def change_picture(self) -> None:
        """Press its keys until the picture is another, and then back: the next control finds the widget as it was.

        Raises:
            BrowserError: it can't be moved, or the picture stays as it was, or there is an error.
        """
        if self._tab.ask(KIND, *self._place) is None:
            raise BrowserError("neither a slider nor a menu; teach this test how to move it")
        self._tab.evaluate("heard.errors = []")
        first = self._await(lambda now: now["picture"], DRAW_SECONDS, "there is no picture")
        moves = []
        for _ in range(PRESSES):
            moves.append(self._move())
            _, before, moved = moves[-1]
            with suppress(BrowserTimeout):
                self._await(lambda now, old=before["picture"]: now["picture"] not in (None, old), SHOW_SECONDS, "")
                break
        else:
            said = ", ".join(f"{before['value']} -> {moved['value']}" for _, before, moved in moves)
            raise BrowserError(f"the picture stays the same for {said}")
        for forwards, _, _ in reversed(moves):
            self._move(not forwards)
        self._await(lambda now: now["picture"] == first["picture"], DRAW_SECONDS, "moved back, the picture is another")

    def _move(self, forwards: bool | None = None) -> tuple[bool, dict[str, Any], dict[str, Any]]:
        """One step, by default forwards, at the end backwards.

        Returns:
            whether it went forwards, its state before, and that when the kernel has done its work.
        """
        before = self._state()
        there = self._tab.ask(FOCUS, *self._place)
        if not there["isFocused"]:
            raise BrowserError("it doesn't take the focus")
        if forwards is None:
            forwards = not there["isAtEnd"]
        if self._tab.ask(KIND, *self._place) == "slider":
            keys = ("ArrowRight" if forwards else "ArrowLeft",)
        else:
            # The space bar opens the menu. As long as it's closed JupyterLab takes the arrow keys for its cells
            # (jupyter-widgets/ipywidgets issue 3912).
            keys = (" ", "ArrowDown" if forwards else "ArrowUp", "Enter")
        for key in keys:
            self._tab.press(key)
        self._await(lambda now: now["value"] != before["value"], MOVE_SECONDS, f"{keys} don't move it")
        moved = self._await(
            lambda now: now["answers"] > before["answers"] and now["isIdle"], DRAW_SECONDS, "the kernel doesn't answer"
        )
        return forwards, before, moved

    def _await(self, condition: Callable[[dict[str, Any]], Any], seconds: float, otherwise: str) -> dict[str, Any]:
        """The state in which ``condition`` holds; an error on the page or from the kernel ends the wait."""

        def holds() -> dict[str, Any] | None:
            now = self._state()
            if now["isIdle"] and (now["errors"] or now["message"].startswith("<b>")):
                raise BrowserError(f"an error: {' '.join([*now['errors'], now['message']])}")
            return now if condition(now) else None

        return wait_for(holds, seconds, lambda: f"{otherwise}; last seen: {self._state()}")

    def _state(self) -> dict[str, Any]:
        return self._tab.ask(STATE, *self._place)


class Reader:
    """Somebody at JupyterLab who runs a notebook and tries its widgets, and remembers what went wrong.

    Attributes:
        problems: what was seen, each with a screenshot of that moment.
    """

    def __init__(self, tab: Tab, screenshots: Path) -> None:
        self.problems: list[str] = []
        self._tab = tab
        self._screenshots = screenshots
        self._name = ""

    def run(self, address: str, name: str) -> None:
        """Open a notebook and run all its cells."""
        self._name = name
        self._tab.call("Page.navigate", url=address)
        wait_for(lambda: self._tab.ask(IS_READY), OPEN_SECONDS, lambda: self._seen("it doesn't open with a kernel"))
        self._tab.ask(RUN_ALL)
        wait_for(lambda: self._tab.evaluate("heard.ended"), RUN_SECONDS, lambda: self._seen(self._unfinished()))
        for cell in self._tab.ask(CELLS):
            for bad in cell["bad"]:
                self._note(f"the cell that begins with `{first_line(cell)}` says {bad.strip()}")
        if self._waiting() and not self.problems:  # a cell that fails stops those after it
            self._note(self._unfinished())

    def try_widgets(self) -> list[str]:
        """Move every control of every widget; returns the labels of those that changed their picture."""
        widgets = self._tab.ask(WIDGETS)
        tagged = sum(cell["isWidget"] for cell in self._tab.ask(CELLS))
        if len(widgets) != tagged:
            self._note(f"{tagged} cells are tagged as widgets, but {len(widgets)} widgets are on the page")
        live = []
        for widget, labels in enumerate(widgets):
            for number, label in enumerate(labels):
                try:
                    Control(self._tab, widget, number).change_picture()
                    live.append(label)
                except BrowserError as error:
                    self._note(f"widget {widget + 1}, control {label!r}: {error}")
        return live

    def _waiting(self) -> list[dict[str, Any]]:
        """The cells that haven't run."""
        return [cell for cell in self._tab.ask(CELLS) if not cell["ran"] and cell["source"].strip()]

    def _unfinished(self) -> str:
        waiting = self._waiting()
        where = f"; the first begins with `{first_line(waiting[0])}`" if waiting else ""
        return f"{len(waiting)} cells haven't run{where}"

    def _seen(self, what: str) -> str:
        """A message that names the notebook and a screenshot of this moment."""
        path = self._screenshots / f"{self._name}-{len(self.problems)}.png"
        return f"{self._name}: {what}. Screenshot: {self._tab.screenshot(path)}"

    def _note(self, what: str) -> None:
        self.problems.append(self._seen(what))


def first_line(cell: dict[str, Any]) -> str:
    return cell["source"].strip().partition("\n")[0]


@pytest.fixture(scope="module")
def open_programs() -> Iterator[ExitStack]:
    """Where JupyterLab and the browser stay open from one test to the next."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def programs(open_programs: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Lab, Browser]]:
    """Starts both with the first test, for only within it the environment names the course's folder."""

    @cache
    def start() -> tuple[Lab, Browser]:
        folder, scratch = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("scratch")
        program = find_browser()
        assert program is not None  # else the tests are skipped
        return (
            open_programs.enter_context(jupyterlab(folder, scratch)),
            open_programs.enter_context(chromium(program, scratch)),
        )

    return start


@pytest.fixture
def lab(
    ci_home: Path, programs: Callable[[], tuple[Lab, Browser]], tmp_path: Path
) -> Iterator[Callable[[nbformat.NotebookNode, str], Reader]]:
    """Gives a reader who has run a notebook in JupyterLab: ``lab(notebook, name)``. The stored file isn't touched."""
    jupyter, browser = programs()
    with jupyter.kernels(), browser.tab() as tab:

        def run(notebook: nbformat.NotebookNode, name: str) -> Reader:
            for cell in notebook.cells:  # so that nothing stored passes for something that ran
                if cell.cell_type == "code":
                    cell.update(outputs=[], execution_count=None)
            nbformat.write(notebook, jupyter.folder / name)
            reader = Reader(tab, tmp_path)
            reader.run(jupyter.address(name), name)
            return reader

        yield run


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_control_of_every_widget_changes_its_picture_in_jupyterlab(path, lab):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(SWEEP_CELL))
    reader = lab(notebook, path.name)

    live = reader.try_widgets()

    assert not reader.problems, "\n".join(reader.problems)
    assert live


BROKEN = (
    """\
import sys

import ipywidgets
from matplotlib.figure import Figure

from emcad_lib.show import widgets


def draw(slider, menu, ignored, fails):
    if fails > 1:
        raise ValueError("too much")
    figure = Figure(figsize=(2, 2))
    figure.text(0.5, 0.5, f"{slider} {menu}")
    return figure


widgets.interactive(
    draw,
    alt="A number and a word.",
    slider=widgets.slider("slider", 0, 9, 9),
    menu=widgets.choice("menu", ["this", "that"], "that"),
    ignored=widgets.slider("ignored", 0, 9, 0),
    fails=widgets.slider("fails", 0, 9, 1),
)
""",
    """\
still = widgets.interactive(lambda: Figure(figsize=(2, 2)), alt="Nothing.")
still.children[0].children = (widgets.slider("unobserved", 0, 9, 0),)
still
""",
    "print('This is a warning.', file=sys.stderr)",
    "1 / 0",
)


def test_a_control_that_changes_nothing_and_all_that_fails_is_noticed(lab):
    """Or else the test above would be content with anything."""
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": ["widget"]}) for source in BROKEN[:2]]
    cells += [nbformat.v4.new_code_cell(source) for source in BROKEN[2:]]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    reader = lab(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), "broken.ipynb")

    live = reader.try_widgets()

    assert live == ["slider", "menu"]
    seen = [
        "`print('This is a warning.', file=sys.stderr)` says This is a warning.",
        "`1 / 0` says ZeroDivisionError: division by zero",
        "widget 1, control 'ignored': the picture stays the same for 0 -> 1, 1 -> 2, 2 -> 3",
        "widget 1, control 'fails': an error: ValueError: too much",
        "widget 2, control 'unobserved': the picture stays the same for 0 -> 1, 1 -> 2, 2 -> 3",
    ]
    for expected, problem in zip(seen, reader.problems, strict=True):
        assert expected in problem
        assert Path(problem.rpartition("Screenshot: ")[2]).read_bytes().startswith(b"\x89PNG")


def sweep(draw, **controls):
    """A widget, after the sweep."""
    shown = widgets.interactive(draw, alt="Nothing.", **controls)
    exec(SWEEP_CELL, {"Out": {1: shown}})
    return shown


def test_a_sweep_tries_all_combinations_where_they_are_few():
    drawn = set()

    def draw(left, right):
        drawn.add((left, right))
        return Figure(figsize=(1, 1))

    sweep(draw, left=widgets.slider("left", 0, 24, 7), right=widgets.choice("right", ["a", "b"]))

    assert drawn == set(itertools.product(range(25), "ab"))


def test_a_sweep_tries_all_values_and_all_combinations_of_ends_where_there_are_many():
    drawn = set()

    def draw(left, right, back):
        drawn.add((left, right, back))
        return Figure(figsize=(1, 1))

    controls = {"left": widgets.slider("left", 0, 40, 7, step=2), "right": widgets.choice("right", ["a", "b", "c"])}
    sweep(draw, **controls, back=widgets.slider("back", 5, 8, 6))

    along = {(left, "a", 6) for left in [*range(0, 41, 2), 7]} | {(7, right, 6) for right in "abc"}
    along |= {(7, "a", back) for back in range(5, 9)}
    assert drawn >= along | set(itertools.product((0, 40), "ac", (5, 8)))


def test_a_value_that_fails_alone_or_together_with_another_is_noticed():
    def draw(left, right):
        if left == 37 or (left, right) == (99, "b"):
            raise ValueError("too much")
        return Figure(figsize=(1, 1))

    controls = {"left": widgets.slider("left", 0, 99, 0), "right": widgets.choice("right", ["a", "b"])}

    with pytest.raises(AssertionError) as error:
        sweep(draw, **controls)

    assert str(error.value) == "left=37, right=a: ValueError: too much; left=99, right=b: ValueError: too much"
    assert [control.value for control in controls.values()] == [0, "a"]


def test_a_picture_that_can_be_built_but_not_painted_is_noticed():
    def draw(menu, number):
        figure = Figure(figsize=(1, 1))
        figure.text(0, 0, "$\\frac$" if menu == "b" else "")
        return figure

    with pytest.raises(AssertionError, match="menu=b, number=5: ValueError"):
        sweep(draw, menu=widgets.choice("menu", ["a", "b"]), number=widgets.slider("number", 0, 9, 5))


def test_a_control_that_nothing_listens_to_is_noticed():
    still = widgets.interactive(lambda: Figure(figsize=(1, 1)), alt="Nothing.")
    still.children[0].children = (widgets.slider("unobserved", 0, 1, 0),)

    with pytest.raises(AssertionError, match="unobserved=1: no figure"):
        exec(SWEEP_CELL, {"Out": {1: still}})


def test_a_sweep_leaves_a_widget_as_it_was():
    def draw(number):
        return Figure(figsize=(1, 1), facecolor=(number / 9, 0, 0))

    for first in (0, 5, 9):
        slider = widgets.slider("number", 0, 9, first)
        picture = sweep(draw, number=slider).children[1]

        assert slider.value == first
        assert picture.value == widgets.interactive(draw, "", number=slider).children[1].value


def test_the_page_hears_of_a_sweep_only_in_the_end(monkeypatch):
    drawn, sent = set(), []

    def draw(number):
        drawn.add(number)
        return Figure(figsize=(1, 1), facecolor=(number / 9, 0, 0))

    shown = widgets.interactive(draw, alt="Nothing.", number=widgets.slider("number", 0, 9, 5))
    (slider,), picture = shown.children[0].children, shown.children[1]
    for part in (slider, picture):
        monkeypatch.setattr(part.comm, "publish_msg", lambda *_, part=part, **__: sent.append(part))

    exec(SWEEP_CELL, {"Out": {1: shown}})

    assert drawn == set(range(10))
    assert sent == [picture, slider]


def test_a_sweep_leaves_the_names_of_the_notebook_alone():
    shown = widgets.interactive(lambda number: Figure(figsize=(1, 1)), alt="", number=widgets.slider("number", 0, 2, 0))
    names = {"Out": {1: shown}}
    exec("", names)  # adds Python's own
    before = dict(names)

    exec(SWEEP_CELL, names)

    assert names == before
