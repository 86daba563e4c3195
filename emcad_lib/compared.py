"""The numbers behind the figures, in the profile ci: stored once, and compared with those of every later run.

    python -m emcad_lib.compared [NN ...]

runs the notebooks, or those of these numbers, on phantom patients made anew, and stores the table behind each of their
figures in figures/ci/. ``tests/notebooks/test_runs.py`` runs them again, and tells which numbers have moved.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from emcad_lib.figures import make_figures
from emcad_lib.files import CourseError, replacing
from emcad_lib.lesson import NOTEBOOKS, RECORDED

STORED = RECORDED.parent / "ci"
# Columns that measure a machine, or how busy it is. They are not stored.
CLOCK = ("seconds", "images_per_second", "times_as_fast", "seconds_per_head")

# What a number may move by: so much of itself, and what is left of a sum that is zero.
CLOSE, ROUNDING = 1e-3, 1e-6
# And so much of the largest of its column, by figure.
LOOSE = {
    # A training makes much of little: a difference in rounding grows with every update. These are about three times or
    # more what moved between one thread with AVX-512 and two with AVX2.
    "05-toy-gate-after": 0.5,  # gates of other openings solve the toy just as well
    "08-first-steps": 0.02,
    "08-loss-and-dice": 0.02,
    "09-dice-by-*": 0.02,
    "09-gradient-agreement": 0.5,  # the first ten updates are the wildest
    "09-yours-over-recorded": 0.02,
    "10-dice-curves": 0.02,
    "10-four-efforts": 0.02,
    "10-loss-*": 0.02,
    "10-table-beside-the-paper": 0.02,
    "13-augmentation": 0.02,
    "13-disagreement": 0.25,  # of networks after six updates, unsure everywhere
    "13-ensemble": 0.2,
    # Voxels that a trained network has found, and what is counted of them: a few of a thousand may lie on the cut.
    "00-*": 1e-3,
    "11-*": 1e-3,
    "12-*": 1e-3,
}


def tolerance(figure: str, column: pd.Series) -> pd.Series:
    """How far each number of a figure's column may lie from the stored one, on another processor or with more threads.

    Args:
        figure: its id.
        column: as stored.
    """
    share = next((share for pattern, share in LOOSE.items() if fnmatchcase(figure, pattern)), 0.0)
    return CLOSE * column.abs() + share * column.abs().max() + ROUNDING


def tables(notebook: str, folder: Path) -> dict[str, pd.DataFrame]:
    """The tables in a folder that stand behind a notebook's figures, by the figures' ids, without the clock's columns.

    Args:
        notebook: its name, or its number alone.
        folder: holds a CSV for each figure, of this notebook and maybe of others.
    """
    paths = sorted(folder.glob(f"{notebook[:2]}-*.csv"))
    return {path.stem: pd.read_csv(path).drop(columns=list(CLOCK), errors="ignore") for path in paths}


def store(notebook: str, data: Path, stored: Path) -> int:
    """Store what a run of a notebook has left in the folder ``data``, in place of what is stored of it.

    Returns:
        how many tables.
    """
    found = tables(notebook, data)
    for old in set(tables(notebook, stored)) - set(found):
        (stored / f"{old}.csv").unlink()
    for figure, table in found.items():
        with replacing(stored / f"{figure}.csv") as beside:
            table.to_csv(beside, index=False, float_format="%.5g", lineterminator="\n")
    return len(found)


def differences(notebook: str, data: Path, stored: Path = STORED) -> str:
    """What a run of a notebook has left in the folder ``data`` otherwise than stored.

    Returns:
        A line for each column of a figure that has moved by more than is tolerated, and for each table that is missing
        or has another shape; and the command that stores what was found. Empty if all is as stored.
    """
    before, now = tables(notebook, stored), tables(notebook, data)
    lines = [f"{figure}: there is no such figure any more." for figure in sorted(set(before) - set(now))]
    for figure, table in now.items():
        lines += _moved(figure, before[figure], table) if figure in before else [f"{figure}: nothing is stored."]
    if not lines:
        return ""
    return "\n".join([*lines, f"If this is meant: python -m emcad_lib.compared {notebook[:2]}"])


def _moved(figure: str, before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    if list(before) != list(now):
        return [f"{figure}: the columns are {list(now)}; stored are {list(before)}."]
    if len(before) != len(now):
        return [f"{figure}: there are {len(now)} rows; stored are {len(before)}."]
    lines = []
    for name in before:
        old, new = before[name], now[name]
        beyond = _beyond(figure, old, new)
        if (beyond > 0).any():
            row = int(beyond.argmax())
            rows = f"{(beyond > 0).sum()} of {len(beyond)} rows"
            lines.append(f"{figure}, {name!r}: {rows} moved, row {row + 1} by most: {new[row]}; stored is {old[row]}.")
    return lines


def _beyond(figure: str, old: pd.Series, new: pd.Series) -> pd.Series:
    """By how much each row of a column is further from the stored one than is tolerated; words are alike or not."""
    if all(is_numeric_dtype(column) and not is_bool_dtype(column) for column in (old, new)):
        beyond = ((new - old).abs() - tolerance(figure, old)).fillna(np.inf)
    else:
        beyond = pd.Series(np.where(old == new, 0.0, np.inf))
    return beyond.where(old.notna() | new.notna(), 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m emcad_lib.compared", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("numbers", nargs="*", metavar="NN", help="of the notebooks to run, such as 03 (default: all)")
    options = parser.parse_args(argv)
    notebooks = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    chosen = [path for path in notebooks if path.name[:2] in options.numbers or not options.numbers]
    try:
        if unknown := set(options.numbers) - {path.name[:2] for path in notebooks}:
            raise CourseError(f"There is no notebook {', '.join(sorted(unknown))}. Give two digits, such as 03.")
        with tempfile.TemporaryDirectory() as home:
            # A course's folder of its own: patients and trainings of another version, or of the reader's, have no say.
            os.environ.update(EMCAD_HOME=home, EMCAD_RUNS="", EMCAD_DATA_DIR="")
            make_figures(chosen, Path(home) / "figures", profile="ci")
            count = sum(store(path.stem, Path(home) / "figures" / "data", STORED) for path in chosen)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"==> {count} tables stored in {STORED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
