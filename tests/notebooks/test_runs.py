"""Every page of the course runs from top to bottom in the profile ci, as papermill runs it and as nbval checks it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat

from emcad_lib.compared import differences
from emcad_lib.costs import COSTS_FILE, excess, read_costs
from emcad_lib.figures import figure_names, make_figures, run_notebook
from emcad_lib.files import read_json
from emcad_lib.meter import Spent, yardstick

ROOT = Path(__file__).parents[2]
COSTS = read_costs(ROOT / "figures" / "recorded" / COSTS_FILE)
# Nobody here needs the grammar of web addresses that jsonschema builds in three seconds where this package is found.
PYTEST = "import sys; sys.modules['rfc3987_syntax'] = None; import pytest; sys.exit(pytest.main())"
CELL_SECONDS = 300  # for one cell: a notebook that hangs fails, rather than the whole suite


def outputs(executed: Path) -> list:
    return [output for cell in nbformat.read(executed, as_version=4).cells for output in cell.get("outputs", [])]


def warnings(executed: Path) -> list[str]:
    """What a page wrote to standard error: warnings, and errors in callbacks, which stop no cell."""
    return [output.text for output in outputs(executed) if output.get("name") == "stderr"]


def test_a_notebook_runs_and_makes_its_figures_of_the_stored_numbers_at_no_more_than_the_recorded_cost(
    notebook, ci_home, tmp_path
):
    figures = make_figures([notebook.path], tmp_path, profile="ci")

    assert [record["id"] for record in figures] == figure_names(notebook.path)
    for record in figures:
        assert (tmp_path / record["file"]).read_bytes().startswith(b"\x89PNG")
        assert len((tmp_path / record["data"]).read_text().splitlines()) >= 2  # a table with a row
        assert (record["profile"], record["patients"], record["seed"]) == ("ci", "phantom", 0)
    assert differences(str(notebook), tmp_path / "data") == ""
    assert warnings(tmp_path / ".state" / "executed" / notebook.path.name) == []
    spent = Spent(**read_json(tmp_path / ".state" / f"{notebook}.json")["spent"])
    assert too_much(spent, COSTS[str(notebook), "ci"]) == ""


def too_much(spent, cost):
    """What the notebook took beyond its allowance. How fast this machine is, is asked only where that matters."""
    return excess(spent, cost) and excess(spent, cost, slowness=yardstick() / cost.yardstick)


def test_solutions_run(solutions, ci_home, tmp_path):
    executed = tmp_path / solutions.path.name

    run_notebook(solutions.path, executed, {"PROFILE": "ci", "DATA_DIR": "", "FIGURES_DIR": "", "SEED": 0})

    assert warnings(executed) == []


def test_a_page_gives_its_stored_outputs_again_where_they_never_change(page, ci_home):
    command = [
        sys.executable, "-c", PYTEST, "--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}",
        "-p", "no:cacheprovider", "--color=no", "-o", "addopts=", str(page.path),
    ]  # fmt: skip
    # Not the options of the test run that this is part of.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    closing = done.stdout.strip().splitlines()[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error|xfailed)", closing)}
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert counts == {"passed": len(page.code)}
