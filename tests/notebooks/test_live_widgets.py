"""The widgets of the notebooks 03 to 07 work where readers meet them: in JupyterLab, in a browser, by the keyboard.

A notebook is run there from top to bottom, and then every control of every widget is moved by its keys until the
picture changes. Slower than all that papermill tells, but papermill has no page and no keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import BrowserError, BrowserTimeout, Tab, chromium, find_browser, jupyterlab, wait_for

pytestmark = pytest.mark.skipif(
    find_browser() is None,
    reason="There is no Chromium or Chrome on the path. Install one: apt install chromium, or from google.com/chrome.",
)

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("0[3-7]_*.ipynb"))

OPEN_SECONDS = 120
RUN_SECONDS = 600  # of a whole notebook, on a machine that is busy with other tests
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


class Control:
    """A slider or a menu on the page: control ``number`` of widget ``widget``."""

    def __init__(self, tab: Tab, widget: int, number: int) -> None:
        self._tab = tab
        self._place = (widget, number)

    def change_picture(self) -> None:
        """Press its keys until the picture is another.

        Raises:
            BrowserError: it can't be moved, or the picture stays as it was, or there is an error.
        """
        if self._tab.ask(KIND, *self._place) is None:
            raise BrowserError("neither a slider nor a menu; teach this test how to move it")
        self._tab.evaluate("heard.errors = []")
        self._await(lambda now: now["picture"], DRAW_SECONDS, "there is no picture")
        moves = []
        for _ in range(PRESSES):
            before, moved = self._move()
            moves.append(f"{before['value']} -> {moved['value']}")
            with suppress(BrowserTimeout):
                self._await(lambda now, old=before["picture"]: now["picture"] not in (None, old), SHOW_SECONDS, "")
                return
        raise BrowserError(f"the picture stays the same for {', '.join(moves)}")

    def _move(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step; its state before, and when the kernel has done its work."""
        before = self._state()
        there = self._tab.ask(FOCUS, *self._place)
        if not there["isFocused"]:
            raise BrowserError("it doesn't take the focus")
        if self._tab.ask(KIND, *self._place) == "slider":
            keys = ("ArrowLeft" if there["isAtEnd"] else "ArrowRight",)
        else:
            # The space bar opens the menu. As long as it's closed JupyterLab takes the arrow keys for its cells
            # (jupyter-widgets/ipywidgets issue 3912).
            keys = (" ", "ArrowUp" if there["isAtEnd"] else "ArrowDown", "Enter")
        for key in keys:
            self._tab.press(key)
        self._await(lambda now: now["value"] != before["value"], MOVE_SECONDS, f"{keys} don't move it")
        moved = self._await(
            lambda now: now["answers"] > before["answers"] and now["isIdle"], DRAW_SECONDS, "the kernel doesn't answer"
        )
        return before, moved

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


@pytest.fixture
def lab(ci_home: Path, tmp_path: Path) -> Iterator[Callable[[nbformat.NotebookNode, str], Reader]]:
    """Gives a reader who has run a notebook in JupyterLab: ``lab(notebook, name)``. The stored file isn't touched."""
    folder, scratch = tmp_path / "lab", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    program = find_browser()
    assert program is not None  # else the tests are skipped
    with jupyterlab(folder, scratch) as address, chromium(program, scratch) as tab:

        def run(notebook: nbformat.NotebookNode, name: str) -> Reader:
            for cell in notebook.cells:  # so that nothing stored passes for something that ran
                if cell.cell_type == "code":
                    cell.update(outputs=[], execution_count=None)
            nbformat.write(notebook, folder / name)
            reader = Reader(tab, tmp_path)
            reader.run(address(name), name)
            return reader

        yield run


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_control_of_every_widget_changes_its_picture_in_jupyterlab(path, lab):
    reader = lab(nbformat.read(path, as_version=4), path.name)

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
