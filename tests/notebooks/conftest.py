"""The course's pages, and a home of their own to run them in.

A test that takes ``notebook`` runs once for each notebook of the course, one that takes ``solutions`` once for each of
their pages of solutions, and one that takes ``page`` for all of them.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Page:
    """A notebook, read."""

    path: Path

    def __str__(self) -> str:
        return self.path.stem

    @cached_property
    def notebook(self):
        return nbformat.read(self.path, as_version=4)

    @property
    def cells(self):
        return self.notebook.cells

    @property
    def code(self):
        """The code cells."""
        return [cell for cell in self.cells if cell.cell_type == "code"]

    @property
    def prose(self):
        """The text of each markdown cell."""
        return [cell.source for cell in self.cells if cell.cell_type == "markdown"]

    @property
    def headings(self):
        return [line for text in self.prose for line in text.splitlines() if re.match("#+ ", line)]

    def tagged(self, tag):
        """The cells with that tag."""
        return [cell for cell in self.cells if tag in cell.metadata.get("tags", [])]


PAGES = {
    "notebook": [Page(path) for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))],
    "solutions": [Page(path) for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))],
}
PAGES["page"] = PAGES["notebook"] + PAGES["solutions"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, pages in PAGES.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, pages, ids=str)


@pytest.fixture(scope="session")
def notebooks() -> list[Page]:
    """The notebooks of the course, in order."""
    return PAGES["notebook"]


@pytest.fixture(scope="session")
def all_solutions() -> list[Page]:
    """The pages of solutions, in order."""
    return PAGES["solutions"]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course's folder for the whole session, so that patients, caches and training runs are made once."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    return folder


@pytest.fixture
def ci_home(home: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with phantom patients, in force for this process and for the kernels that it starts; profile ci."""
    if not (home / "data" / "phantom").exists():
        shutil.copytree(phantoms, home / "data" / "phantom")
    monkeypatch.setenv("EMCAD_HOME", str(home))
    monkeypatch.setenv("EMCAD_PROFILE", "ci")
    monkeypatch.delenv("EMCAD_DATA_DIR", raising=False)
    return home
