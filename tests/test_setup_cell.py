"""The setup cell and the badge are written into the notebooks from one place each."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from emcad_lib.setup_cell import COLAB_LACKS, address, badge, setup_cell, update

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"


def test_a_badge_opens_the_page_that_it_stands_on():
    place = f"{address().removeprefix('https://github.com/')}/blob/main/notebooks"

    assert badge(Path("notebooks/03_x.ipynb")).endswith(f"https://colab.research.google.com/github/{place}/03_x.ipynb)")
    assert badge(Path("notebooks/solutions/03_x_solutions.ipynb")).endswith(f"/{place}/solutions/03_x_solutions.ipynb)")


def test_an_update_renews_the_setup_cell_and_the_badge_and_nothing_else(tmp_path):
    notebook = tmp_path / "03_x.ipynb"
    cells = [
        new_markdown_cell("# 03 · X\n\n[![Open in Colab](old)](old)\n\nWhy (and how)?"),
        new_code_cell("old setup", metadata={"tags": ["setup"]}),
        new_code_cell("print(1)"),
    ]
    nbformat.write(new_notebook(cells=cells), notebook)

    update(notebook, REQUIREMENTS)
    first, setup, rest = nbformat.read(notebook, as_version=4).cells

    assert first.source == f"# 03 · X\n\n{badge(notebook)}\n\nWhy (and how)?"
    assert setup.source == setup_cell(REQUIREMENTS)
    assert rest.source == "print(1)"


def test_the_setup_cell_pins_what_the_requirements_pin(tmp_path):
    pins = {
        "accelerate": "1.0",
        "isal": "1.5",
        "monai": "2.0",
        "nibabel": "3.0",
        "nilearn": "4.0",
        "timm": "5.0",
        "torch": "6.0",
    }
    (tmp_path / "requirements.txt").write_text("".join(f"{name}=={pin}\n" for name, pin in pins.items()))

    cell = setup_cell(tmp_path / "requirements.txt")

    assert "accelerate==1.0 isal==1.5 monai==2.0 nibabel==3.0 nilearn==4.0 timm==5.0" in cell
    assert "torch" not in cell


def run_on_colab(monkeypatch, folder_is_there):
    """Run the setup cell as Colab would, where nothing is installed; return the commands that it runs."""
    import importlib.util
    import os
    import subprocess
    import sys

    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(os.path, "isdir", lambda path: folder_is_there)
    monkeypatch.setattr(os, "chdir", lambda path: commands.append(["cd", path]))
    monkeypatch.setattr(os, "getcwd", lambda: "/content/emcad-course/notebooks")
    monkeypatch.setattr(
        subprocess, "run", lambda command, check, cwd=None: commands.append([str(word) for word in command])
    )
    exec(setup_cell(REQUIREMENTS), {})
    assert sys.path[0] == "/content/emcad-course"
    return commands


def test_on_colab_it_fetches_the_course_installs_what_is_missing_and_goes_to_the_notebooks(monkeypatch):
    clone, install, go = run_on_colab(monkeypatch, folder_is_there=False)

    assert clone[:2] == ["git", "clone"]
    assert clone[-1] == address()
    assert install[1:4] == ["-m", "pip", "install"]
    assert sum("==" in word for word in install) == len(COLAB_LACKS)  # each package is a word of its own
    assert go == ["cd", "/content/emcad-course/notebooks"]


def test_on_colab_a_second_run_does_not_fetch_the_course_again(monkeypatch):
    assert [command[0] for command in run_on_colab(monkeypatch, folder_is_there=True)][1:] == ["cd"]
