"""What is the same at the top of every notebook: the setup cell, the badges that open it elsewhere, what it costs.

All are made here, each from one place, and written into the notebooks by ``python -m emcad_lib.setup_cell``: the
project's address and version from pyproject.toml, the costs from figures/recorded/notebook_costs.csv. It also renews
the tables of settings and costs in notebooks, README and teaching guide: see tables.py.
"""

from __future__ import annotations

import re
import sys
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat

import emcad_lib
from emcad_lib.costs import COSTS_FILE, HEADER, cost_table, read_costs
from emcad_lib.files import project_home, replacing
from emcad_lib.tables import renew, renew_minutes

SETUP = """\
# Setup, the same in every notebook: on Colab and Kaggle it fetches the course, elsewhere the course is there.
import os
import shutil
import subprocess
import sys

ADDRESS = "{address}"
VERSION = "{version}"
KEEP_ON_DRIVE = False  # True, on Colab: training runs are kept in your Google Drive, and go on from there

ROOT = "/content" if "google.colab" in sys.modules else ""
ROOT = "/kaggle/working" if "KAGGLE_KERNEL_RUN_TYPE" in os.environ else ROOT
if ROOT:
    course = f"{{ROOT}}/{folder}-{{VERSION}}"
    for branch in (f"v{{VERSION}}", "main"):  # the notebook's own version, or the newest where it has no release
        if not os.path.isdir(course):
            shutil.rmtree(f"{{course}}.part", ignore_errors=True)
            clone = ["git", "clone", "--quiet", "--depth=1", f"--branch={{branch}}", ADDRESS, f"{{course}}.part"]
            git = subprocess.run(clone, capture_output=True, text=True)
            if git.returncode == 0:
                os.rename(f"{{course}}.part", course)
    if not os.path.isdir(course):
        hint = "Is there a connection? (On Kaggle: Settings, Internet on.) Then run this cell again."
        raise RuntimeError(f"The course could not be fetched. {{hint}} git says:\\n{{git.stderr}}")
    sys.path.insert(0, course)
    from emcad_lib.hosted import settle

    settle(course, VERSION, KEEP_ON_DRIVE)  # installs what is missing
else:
    sys.path.append(os.path.dirname(os.getcwd()))  # the course's folder, for whom the course isn't installed
"""


def _project() -> dict[str, Any]:
    pyproject = Path(emcad_lib.__file__).parents[1] / "pyproject.toml"
    project: dict[str, Any] = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project


def address() -> str:
    """The address of the course's repository."""
    return str(_project()["urls"]["Repository"])


def setup_cell() -> str:
    """The setup cell's text."""
    folder = address().rsplit("/", 1)[-1]
    return SETUP.format(address=address(), version=_project()["version"], folder=folder).rstrip("\n")


def badges(notebook: Path) -> str:
    """Markdown: the pictures that open the notebook on Colab and on Kaggle, in a line."""
    place = f"solutions/{notebook.name}" if notebook.parent.name == "solutions" else notebook.name
    page = f"{address()}/blob/main/notebooks/{place}"
    colab, kaggle = "https://colab.research.google.com", "https://kaggle.com"
    links = [
        ("Colab", f"{colab}/assets/colab-badge.svg", f"{colab}/github/{page.removeprefix('https://github.com/')}"),
        ("Kaggle", f"{kaggle}/static/images/open-in-kaggle.svg", f"{kaggle}/kernels/welcome?src={page}"),
    ]
    return " ".join(f"[![Open in {name}]({picture})]({link})" for name, picture, link in links)


def update(notebook: Path, costs: Path) -> None:
    """Write the current setup cell, badges, table of costs and marked tables into a notebook.

    Args:
        notebook: is changed in place, if there is anything to renew. One that has no table of costs, such as a page of
            solutions, gets none.
        costs: the recorded table.
    """
    content = nbformat.read(notebook, as_version=4)
    before = deepcopy(content)
    for cell in content.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.source = setup_cell()
    first = content.cells[0]
    first.source = re.sub(r"\[!\[Open in Colab\].*\)", badges(notebook), first.source)
    for cell in content.cells:
        if cell.cell_type == "markdown" and HEADER in cell.source:
            table = cost_table(read_costs(costs), notebook.stem)
            cell.source = re.sub(rf"^{re.escape(HEADER)}(\n\|.*)*", table, cell.source, flags=re.M)
        if cell.cell_type == "markdown":
            cell.source = renew(cell.source, project_home())
    if content != before:
        with replacing(notebook) as beside:
            nbformat.write(content, beside)


def update_pages(home: Path) -> None:
    """Write the current tables into the README, and the minutes of today into the teaching guide.

    Args:
        home: the course's folder.
    """
    for page, renewed in ((home / "README.md", renew), (home / "TEACHING.md", renew_minutes)):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text, home)) != text:
            with replacing(page) as beside:
                beside.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    home = project_home()
    for path in sorted((home / "notebooks").rglob("*.ipynb")):
        update(path, home / "figures" / "recorded" / COSTS_FILE)
        sys.stdout.write(f"{path.name}\n")
    update_pages(home)
