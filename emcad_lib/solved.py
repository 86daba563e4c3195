"""How far a learner is: which exercises of each notebook were right in its last run. Kept beside the training runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emcad_lib.files import CourseError, read_json, write_json

RIGHT, OPEN = "●", "○"


def keep(folder: Path, notebook: str, said: Sequence[str]) -> None:
    """Remember what the checks of a notebook's exercises have said, in a file of its own.

    Args:
        folder: of these files.
        notebook: its name, such as ``03_multi_scale_convolution``.
        said: by each check, in order. What begins with "Right" is right.
    """
    write_json(folder / f"{notebook}.json", {"right": [answer.startswith("Right") for answer in said]})


def overview(folder: Path, notebooks: Sequence[str], here: str) -> str:
    """A table of the course: a line for each notebook, a dot for each exercise, full for one that is right.

    Args:
        folder: of `keep`'s files.
        notebooks: the names, in order.
        here: the one that the reader is in.
    """
    lines = []
    for notebook in notebooks:
        right = _kept(folder / f"{notebook}.json")
        dots = "".join(RIGHT if each else OPEN for each in right)
        count = f"{sum(right)} of {len(right)}" if right else "not run yet"
        mark = "  <- you are here" if notebook == here else ""
        lines.append(f"{notebook.replace('_', ' '):34s}{dots:6s}{count}{mark}")
    return "\n".join(lines)


def _kept(path: Path) -> list[bool]:
    """For each exercise, whether it was right; none where nothing readable is kept: the next run writes it anew."""
    try:
        return [bool(each) for each in read_json(path)["right"]]
    except (CourseError, KeyError, TypeError):
        return []
