"""Store what a notebook printed and drew in the notebook itself, in the form that is committed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

from emcad_lib.files import CourseError, replacing

WIDGET = "application/vnd.jupyter.widget-view+json"


def store_outputs(notebook: Path, executed: Path) -> None:
    """Copy the outputs of an executed copy into ``notebook``, without injected cells, widgets and progress frames.

    Raises:
        CourseError: when the executed copy is of another text.
    """
    target = nbformat.read(notebook, as_version=4)
    source = nbformat.read(executed, as_version=4)
    cells = [cell for cell in source.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in cells] != [cell.source for cell in target.cells]:
        raise CourseError(f"{notebook.name} was changed after it was run. Run it again.")
    count = 0
    for cell, ran in zip(target.cells, cells, strict=True):
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [_cleaned(output, count) for output in _joined(ran.outputs) if _is_kept(output)]
    # State of widgets is left out: without it GitHub shows the page, and each widget has a static twin.
    target.metadata.pop("widgets", None)
    target.metadata.pop("papermill", None)
    with replacing(notebook) as beside:
        nbformat.write(target, beside)


def _joined(outputs: list[Any]) -> list[Any]:
    """The outputs, with what was printed in one go in one piece: a kernel cuts it wherever its clock strikes."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.name == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _is_kept(output: Any) -> bool:
    return WIDGET not in output.get("data", {})


def _cleaned(output: Any, count: int) -> Any:
    if output.output_type == "stream":
        output.text = last_frames(output.text)
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def last_frames(text: str) -> str:
    """What a terminal would show in the end: of each line, what follows the last carriage return."""
    return "\n".join(re.split(r"\r(?!$)", line)[-1].rstrip("\r") for line in text.split("\n"))
