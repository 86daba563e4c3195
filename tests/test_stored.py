"""Outputs are stored in a notebook as they are to be committed: in order, and without what only a kernel can show."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from emcad_lib.files import CourseError
from emcad_lib.stored import last_frames, store_outputs

WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "VBox()"}


@pytest.fixture
def write(tmp_path):
    """Writes a notebook of the given cells to the test's folder."""

    def write(name, cells, **metadata):
        notebook = new_notebook(cells=cells)
        notebook.metadata.update(metadata)
        nbformat.write(notebook, tmp_path / name)
        return tmp_path / name

    return write


def code(source, *outputs, count=None, tags=()):
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)})


def printed(text):
    return new_output("stream", name="stdout", text=text)


def test_outputs_are_copied_and_counted_from_one_without_the_injected_cell(write):
    notebook = write("a.ipynb", [new_markdown_cell("# A"), code("N = 0", tags=["parameters"]), code("N"), code("")])
    executed = write(
        "b.ipynb",
        [
            new_markdown_cell("# A"),
            code("N = 0", count=1, tags=["parameters"]),
            code("N = 5", count=2, tags=["injected-parameters"]),
            code("N", new_output("execute_result", {"text/plain": "5"}, execution_count=3), count=3),
            code("", count=4),
        ],
    )

    store_outputs(notebook, executed)
    cells = nbformat.read(notebook, as_version=4).cells

    assert [cell.source for cell in cells] == ["# A", "N = 0", "N", ""]
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3]
    assert cells[2].outputs[0].execution_count == 2
    assert cells[2].outputs[0].data == {"text/plain": "5"}


def test_outputs_of_an_earlier_run_are_replaced(write):
    notebook = write("a.ipynb", [code("1", printed("old"), count=9)])
    store_outputs(notebook, write("b.ipynb", [code("1", printed("new"), count=1)]))

    (cell,) = nbformat.read(notebook, as_version=4).cells
    assert [output.text for output in cell.outputs] == ["new"]
    assert cell.execution_count == 1


def test_what_a_kernel_printed_in_pieces_is_stored_in_one(write):
    warned = new_output("stream", name="stderr", text="careful\n")
    pieces = (printed("0%\r5"), printed("0%\r100%\n"), printed("done\n"), warned, printed("more\n"))
    notebook = write("a.ipynb", [code("train()")])
    store_outputs(notebook, write("b.ipynb", [code("train()", *pieces, count=1)]))

    outputs = nbformat.read(notebook, as_version=4).cells[0].outputs
    assert [(output.name, output.text) for output in outputs] == [
        ("stdout", "100%\ndone\n"), ("stderr", "careful\n"), ("stdout", "more\n"),
    ]  # fmt: skip


def test_widgets_are_left_out_and_pictures_stay(write):
    png = new_output("display_data", {"image/png": "aGk="}, metadata={"image/png": {"alt": "Two bars."}})
    notebook = write("a.ipynb", [code("show()")], widgets={"application/vnd.jupyter.widget-state+json": {}})
    store_outputs(notebook, write("b.ipynb", [code("show()", new_output("display_data", WIDGET), png, count=1)]))

    stored = nbformat.read(notebook, as_version=4)
    (kept,) = stored.cells[0].outputs
    assert kept.data == png.data
    assert kept.metadata == png.metadata
    assert "widgets" not in stored.metadata


def test_what_papermill_notes_is_left_out_and_what_the_author_set_stays(write):
    notebook = write("a.ipynb", [code("1", tags=["setup"])], papermill={"duration": 1}, kernelspec={"name": "python3"})
    executed = write("b.ipynb", [code("1", count=1, tags=["setup"])], papermill={"duration": 2})
    store_outputs(notebook, executed)

    stored = nbformat.read(notebook, as_version=4)
    assert stored.metadata == {"kernelspec": {"name": "python3"}}
    assert stored.cells[0].metadata == {"tags": ["setup"]}


def test_an_executed_copy_of_another_text_is_refused_and_nothing_is_changed(write):
    notebook = write("a.ipynb", [code("1")])
    before = notebook.read_bytes()

    with pytest.raises(CourseError, match=r"a\.ipynb was changed after it was run"):
        store_outputs(notebook, write("b.ipynb", [code("2", printed("2"), count=1)]))

    assert notebook.read_bytes() == before


def test_of_a_progress_bar_only_the_last_frame_is_stored(write):
    notebook = write("a.ipynb", [code("train()")])
    frames = "start\n\rEpoch 1:   0%\rEpoch 1:  50%\rEpoch 1: 100%\nend\n"
    store_outputs(notebook, write("b.ipynb", [code("train()", printed(frames), count=1)]))

    assert nbformat.read(notebook, as_version=4).cells[0].outputs[0].text == "start\nEpoch 1: 100%\nend\n"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", ""),
        ("one\ntwo\n", "one\ntwo\n"),
        ("\r 0%\r100%", "100%"),
        ("\r 0%\r100%\r", "100%"),  # the cursor went back, and nothing was written over it
        ("a\r\nb\r\n", "a\nb\n"),  # ends of lines on Windows
    ],
)
def test_last_frames_are_what_a_terminal_shows_in_the_end(text, seen):
    assert last_frames(text) == seen
