"""The course opens on Colab and on Kaggle by a click: the setup cell fetches it, installs what is missing, and it runs.

A clean virtual environment stands for the rented machine. What such a machine brings, PyTorch and NumPy among it, it
sees as links to this environment's; what it lacks is really installed by the cell, from the package registry. The
address is a repository on this disk, which holds the working tree as it is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import venv
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest

import emcad_lib
from emcad_lib.files import read_json
from emcad_lib.setup_cell import address

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "00_start_here.ipynb"
TAG = f"v{emcad_lib.__version__}"
# Colab and Kaggle bring some of these in some version. Here they bring none, the course's tools neither.
LACKING = {"accelerate", "isal", "monai", "nibabel", "nilearn", "timm"}
TOOLS = {"emcad-course", "jupyterlab", "nbval", "papermill"}

RUN = """\
import json
import sys
from pathlib import Path

if __name__ == "__main__":  # or else workers would run all of it again
    job = json.loads(Path(sys.argv[1]).read_text())
    if job["is_colab"]:
        import google.colab  # before the first cell, as on Colab
    scope = {"__name__": "__main__"}
    for source in job["cells"]:
        exec(compile(source, "a cell", "exec"), scope)
        if list(Path(job["figures"]).glob("*.png")):
            break
"""


def git(repository: Path, *words: str) -> str:
    who = ["-c", "user.name=A reader", "-c", "user.email=reader@example.org"]
    command = ["git", f"--git-dir={repository}", f"--work-tree={ROOT}", *who, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with this version's release, and a later state of the main branch."""
    folder = tmp_path_factory.mktemp("address") / "course.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder)], check=True)
    git(folder, "add", "--all", ".")
    git(folder, "commit", "--quiet", "--message=Release")
    git(folder, "tag", TAG)
    git(folder, "commit", "--quiet", "--allow-empty", "--message=Later")
    return folder


@dataclass(frozen=True)
class Machine:
    """A rented machine."""

    python: Path
    packages: Path  # where pip installs to
    repository: Path

    def run(self, root: Path, host: str, drive: bool = False) -> subprocess.CompletedProcess[str]:
        """Run notebook 00 in ``root``, which stands for the host's own folder, up to its first figure."""
        place = {"colab": "/content", "kaggle": "/kaggle/working"}[host]
        cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
        changes = {f'"{place}"': f'"{root}"', address(): f"file://{self.repository}"}
        changes |= {'PROFILE = ""': 'PROFILE = "ci"', 'FIGURES_DIR = ""': f'FIGURES_DIR = "{root / "figures"}"'}
        changes |= {"KEEP_ON_DRIVE = False": "KEEP_ON_DRIVE = True"} if drive else {}
        for old, new in changes.items():
            assert sum(old in cell for cell in cells[:2]) == 1
            cells[:2] = [cell.replace(old, new) for cell in cells[:2]]
        root.mkdir(exist_ok=True)
        job = {"cells": cells, "figures": str(root / "figures"), "is_colab": host == "colab"}
        (root / "job.json").write_text(json.dumps(job))
        (root / "run.py").write_text(RUN)
        ours = re.compile("EMCAD_|PYTHON|PYTEST_|KAGGLE_|VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not ours.match(name)}
        environment |= {"MPLBACKEND": "agg"} | ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"} if host == "kaggle" else {})
        command = [str(self.python), str(root / "run.py"), str(root / "job.json")]
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)

    def installed(self) -> set[str]:
        """The packages that pip has installed."""
        return {distribution.name.lower() for distribution in distributions(path=[str(self.packages)])}


@pytest.fixture
def machine(tmp_path, repository):
    """A machine that has only what it brings, with a stand-in for Colab's own package."""
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    brought, colab = tmp_path / "brought", tmp_path / "stand-in" / "google" / "colab"
    brought.mkdir()
    for distribution in distributions():
        if distribution.name.lower() in LACKING | TOOLS:
            continue
        for entry in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not entry.endswith(".pth") and not (brought / entry).exists():
                (brought / entry).symlink_to(distribution.locate_file(entry))
    colab.mkdir(parents=True)
    (colab / "__init__.py").touch()
    (colab / "drive.py").write_text(
        "import os\n\ndef mount(place):\n    os.makedirs(place + '/MyDrive', exist_ok=True)\n"
    )
    (packages / "brought.pth").write_text(f"{brought}\n{colab.parents[1]}\n")
    return Machine(tmp_path / "venv" / "bin" / "python", packages, repository)


def check(machine: Machine, root: Path, done: subprocess.CompletedProcess[str]) -> None:
    course = root / f"emcad-course-{emcad_lib.__version__}"
    fetched = subprocess.run(["git", "rev-parse", "HEAD"], cwd=course, capture_output=True, text=True, check=True)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert fetched.stdout.strip() == git(machine.repository, "rev-parse", f"{TAG}^{{commit}}")
    assert "no release" not in done.stdout
    assert machine.installed() == LACKING
    assert re.search(r"^Profile ci: .* GB of memory free\. This notebook takes .*\.$", done.stdout, flags=re.M)
    first, *_ = sorted((root / "figures").glob("*.png"))
    assert first.read_bytes().startswith(b"\x89PNG")
    assert (course / "data" / "phantom").is_dir()
    assert read_json(root / "figures" / ".state" / "records" / f"{first.stem}.json")["notebook"] == NOTEBOOK.stem


def test_on_colab_a_notebook_runs_from_a_click_to_its_first_figure(machine, tmp_path):
    root = tmp_path / "content"

    check(machine, root, machine.run(root, "colab", drive=True))

    assert (root / "drive" / "MyDrive" / "emcad-course" / "runs").is_dir()


def test_on_kaggle_it_does_too(machine, tmp_path):
    root = tmp_path / "working"

    check(machine, root, machine.run(root, "kaggle"))
