"""On Colab and Kaggle: pip is asked for what lessons need and for nothing else, and a refusal says what to do."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

import emcad_lib
from emcad_lib.files import CourseError
from emcad_lib.hosted import LEFT_ALONE, NOT_FOR_LESSONS, settle, wanted
from emcad_lib.lesson import begin

ROOT = Path(__file__).parents[1]

OPTIONAL = {"distributed", "segmentation_models_pytorch", "ipyniivue"}  # whoever wants to use them installs them


@pytest.fixture
def course(tmp_path):
    """A folder that was fetched as a release."""
    folder = tmp_path / "content" / "course"
    (folder / "notebooks").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("0123456789\n")
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["nibabel>=5.2", "nowhere>=1.0", "torch>=2.4"]\n')
    (folder / "requirements.txt").write_text("nibabel==5.4.2\nnowhere==1.5\ntorch==2.5\n")
    return folder


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Stands for pip: what it was asked for, word by word, and what it is to answer."""
    answer = types.SimpleNamespace(asked=[], kept="", returncode=0, stderr="")

    def run(command, **_):
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        answer.kept = Path(command[command.index("--constraint") + 1]).read_text()
        answer.asked = [word for word in command if ">=" in word]
        return answer

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    return answer


# ---- Packages --------------------------------------------------------------------------------------------------------


def test_what_is_there_may_stay_and_what_is_missing_comes_at_most_in_the_version_that_was_tested(course):
    assert wanted(course) == ["nibabel>=5.2", "nowhere>=1.0,<=1.5"]


def test_pip_has_to_keep_what_such_a_machine_brings(course, pip):
    settle(course, "0.1.0")

    assert pip.asked == ["nibabel>=5.2", "nowhere>=1.0,<=1.5"]
    assert pip.kept.splitlines() == [f"{name}=={importlib.metadata.version(name)}" for name in LEFT_ALONE]
    assert {"torch", "torchvision", "numpy"} <= set(LEFT_ALONE)


def test_everything_that_a_lesson_imports_is_there_or_asked_for():
    asked = {re.split("[^a-zA-Z0-9._-]", requirement)[0] for requirement in wanted(ROOT)}
    of_tools = {"figures.py", "setup_cell.py", "stored.py", "tables.py"}
    sources = [path.read_text() for path in (ROOT / "emcad_lib").rglob("*.py") if path.name not in of_tools]
    for notebook in (ROOT / "notebooks").rglob("*.ipynb"):
        sources += [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    imported = set()
    for node in [node for source in sources for node in ast.walk(ast.parse(source))]:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    others = imported - sys.stdlib_module_names - {"emcad_lib", "mpl_toolkits", "IPython"}

    assert {"nibabel", "nilearn", "timm", "accelerate"} <= asked
    assert others - asked - set(LEFT_ALONE) == OPTIONAL
    assert not asked & set(LEFT_ALONE + NOT_FOR_LESSONS)


def test_when_pip_fails_the_message_says_what_to_do_and_what_pip_said(course, pip):
    pip.returncode, pip.stderr = 1, "WARNING: retrying\nERROR: No matching distribution found for nowhere\n"

    with pytest.raises(CourseError, match=r"connection\?.*Internet on.*run this cell again.*\nERROR: No matching"):
        settle(course, "0.1.0")


# ---- The place -------------------------------------------------------------------------------------------------------


def test_a_lesson_finds_its_course_afterwards_and_a_release_is_no_news(course, pip, capsys):
    settle(course, "0.1.0")

    assert Path.cwd() == course / "notebooks"
    assert capsys.readouterr().out == ""


def test_a_notebook_without_a_release_is_told_that_it_has_the_newest_state(course, pip, capsys):
    (course / ".git" / "HEAD").write_text("ref: refs/heads/main\n")

    settle(course, "0.7.0")

    said = capsys.readouterr().out
    assert "There is no release v0.7.0" in said
    assert f"version {emcad_lib.__version__})" in said


def test_it_imports_nothing_that_has_to_be_installed_first():
    program = "import sys\nsys.path.insert(0, sys.argv[1])\nimport emcad_lib.hosted"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, str(ROOT)], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


# ---- Runs that outlive the machine -----------------------------------------------------------------------------------


@pytest.fixture
def colab(monkeypatch):
    """Colab's own package, whose Drive can be reached."""
    drive = types.SimpleNamespace(mount=lambda place: Path(place).mkdir())
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive))
    monkeypatch.setitem(sys.modules, "google.colab.drive", drive)
    monkeypatch.setenv("EMCAD_RUNS", "")
    return drive


def test_on_demand_trainings_are_kept_on_the_readers_drive(course, pip, colab):
    settle(course, "0.1.0", keep_on_drive=True)

    runs = course.parent / "drive" / "MyDrive" / "emcad-course" / "runs"
    assert os.environ["EMCAD_RUNS"] == str(runs)
    assert runs.is_dir()
    assert begin("03_x", "ci").runs == runs / "ci-phantom"


def test_a_drive_that_cannot_be_reached_is_said_so_with_a_way_on(course, pip, colab):
    def mount(place):
        raise ValueError("mount failed")

    colab.mount = mount

    with pytest.raises(CourseError, match=r"allow the access, or set KEEP_ON_DRIVE = False.*\nmount failed"):
        settle(course, "0.1.0", keep_on_drive=True)


def test_kaggle_has_no_drive_and_says_what_it_keeps(course, pip, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)

    settle(course, "0.1.0", keep_on_drive=True)

    assert "Kaggle keeps" in capsys.readouterr().out
