"""The setup cell that every notebook carries, and the badge that opens it on Colab.

Both are made here from the project's address (pyproject.toml) and the pinned versions (requirements.txt), and written
into the notebooks by ``python -m emcad_lib.setup_cell``.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import metadata
from pathlib import Path

import nbformat

from emcad_lib.files import project_home, replacing

# What the lessons import and Colab doesn't bring, or brings in another version. Never torch or numpy: replacing those
# under a running Colab breaks it.
COLAB_LACKS = ("accelerate", "isal", "monai", "nibabel", "nilearn", "timm")

SETUP = """\
# Setup, the same in every notebook. In the course's own environment it does nothing; on Colab it fetches the course.
import importlib.util
import os
import subprocess
import sys

ADDRESS = "{address}"
VERSIONS = "{pins}"

if importlib.util.find_spec("emcad_lib") is None:
    if "google.colab" in sys.modules:
        if not os.path.isdir("/content/{folder}"):
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", ADDRESS], cwd="/content", check=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *VERSIONS.split()], check=True)
        os.chdir("/content/{folder}/notebooks")
    sys.path.insert(0, os.path.dirname(os.getcwd()))  # the course's folder, seen from notebooks/
"""


def address() -> str:
    """The address of the course's repository."""
    for entry in metadata("emcad-course").get_all("Project-URL") or []:
        label, _, url = entry.partition(", ")
        if label == "Repository":
            return url
    raise ValueError("pyproject.toml names no Repository under project.urls")


def setup_cell(requirements: Path) -> str:
    """The setup cell's text, with the versions that ``requirements`` pins."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", requirements.read_text(encoding="utf-8"), flags=re.M))
    pins = " ".join(f"{name}=={pinned[name]}" for name in COLAB_LACKS)
    return SETUP.format(address=address(), folder=address().rsplit("/", 1)[-1], pins=pins).rstrip("\n")


def badge(notebook: Path) -> str:
    """Markdown: the picture that opens the notebook on Colab."""
    path = address().removeprefix("https://github.com/")
    place = f"solutions/{notebook.name}" if notebook.parent.name == "solutions" else notebook.name
    link = f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{place}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"


def update(notebook: Path, requirements: Path) -> None:
    """Write the current setup cell and badge into a notebook."""
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.source = setup_cell(requirements)
    first = content.cells[0]
    first.source = re.sub(r"\[!\[Open in Colab\].*\)", badge(notebook), first.source)
    with replacing(notebook) as beside:
        nbformat.write(content, beside)


if __name__ == "__main__":
    for path in sorted((project_home() / "notebooks").rglob("*.ipynb")):
        update(path, project_home() / "requirements.txt")
        sys.stdout.write(f"{path.name}\n")
