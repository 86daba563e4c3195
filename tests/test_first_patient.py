"""Whoever has only read the README gets to a segmented patient: by its commands, and by its link to notebook 00."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import nbformat
import nibabel as nib
import numpy as np

from emcad_lib.figures import figure_names
from emcad_lib.setup_cell import address, badges

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Your first segmented patient\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^ {4}(\S.*)$", SECTION, flags=re.M)


def test_the_readmes_commands_give_a_mask_and_a_picture(tmp_path):
    clone, setup, *commands = COMMANDS
    (tmp_path / "data_scripts").symlink_to(ROOT / "data_scripts")

    assert clone == f"git clone {address()} && cd {address().rpartition('/')[2]}"
    assert setup == "make setup"
    for command in commands:
        python, *words = shlex.split(command)
        assert python == ".venv/bin/python"
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    mask, picture = (tmp_path / name for name in re.findall(r"`(runs/first\.\S+)`", SECTION)[::-1])
    found = np.asarray(nib.load(mask).dataobj) != 0
    true = np.asarray(nib.load(tmp_path / "data/phantom/Phantom_000/Phantom_000_seg.nii.gz").dataobj) != 0
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.7
    assert matplotlib.image.imread(picture).std() > 0.1  # something is drawn


def test_the_readmes_link_opens_notebook_00_whose_first_figure_is_a_segmented_patient():
    (link,) = re.findall(r"\]\((https://colab\S+)\)", SECTION)
    (named,) = re.findall(r"look for\s+\*([^*]+)\*", SECTION)
    notebook = ROOT / "notebooks" / "00_start_here.ipynb"
    cells = nbformat.read(notebook, as_version=4).cells
    first = next(number for number, cell in enumerate(cells) if "lesson.show(" in cell.source)
    headings = [line.lstrip("# ") for cell in cells[:first] for line in re.findall("^#+ .*", cell.source, flags=re.M)]

    assert f"]({link})" in badges(notebook)
    assert headings[-1] == named
    assert figure_names(notebook)[0] == "00-truth-and-prediction"
    assert "found" in cells[first].source
