"""What the setup cell does on Colab and Kaggle once the course is fetched: it installs what is missing, and moves in.

This runs before anything is installed, so it imports nothing but Python itself and `files.py`.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import emcad_lib
from emcad_lib.files import CourseError

# Such a machine brings these, and its other packages are built for them: replacing one under a running notebook breaks
# it. Whatever is installed has to get along with the ones that are there.
LEFT_ALONE = ("matplotlib", "numpy", "pandas", "scipy", "torch", "torchvision")
# For those who work on the course at home.
NOT_FOR_LESSONS = ("jupyterlab", "papermill")


def settle(course: str | Path, version: str, keep_on_drive: bool = False) -> None:
    """Make a rented machine ready for a lesson. A second call finds everything done, and is harmless.

    Args:
        course: the folder that the course was fetched to.
        version: of the course, as the notebook that runs knows it.
        keep_on_drive: on Colab, keep training runs in the reader's Google Drive.

    Raises:
        CourseError: a package can't be installed, or the Drive can't be reached.
    """
    course = Path(course)
    if (course / ".git" / "HEAD").read_text(encoding="utf-8").startswith("ref:"):  # a branch, not the release's tag
        print(
            f"There is no release v{version} of the course, so its newest state was fetched (version "
            f"{emcad_lib.__version__}). If it doesn't fit this notebook, open the notebook anew from the course's page."
        )
    install_missing(course)
    os.chdir(course / "notebooks")  # where a lesson looks for its course, and where its links lead from
    if keep_on_drive:
        _keep_on_drive(course.parent / "drive")


def wanted(course: Path) -> list[str]:
    """What pip is asked for: the packages that lessons need, without those that are `LEFT_ALONE`.

    One that is there may be of any version in the course's range; one that isn't is installed in the version that the
    course was tested with, or in the nearest older one that gets along with what is there.
    """
    project = tomllib.loads((course / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = (course / "requirements.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", requirements, flags=re.M))
    asked = []
    for requirement in project["dependencies"]:
        name = re.split("[^a-zA-Z0-9._-]", requirement)[0]
        if name not in LEFT_ALONE + NOT_FOR_LESSONS:
            asked.append(requirement if _version(name) else f"{requirement},<={pins[name]}")
    return asked


def install_missing(course: Path) -> None:
    """Let pip install what lessons need and this machine lacks.

    Raises:
        CourseError: when pip fails, with its own last words.
    """
    kept = [f"{name}=={have}\n" for name in LEFT_ALONE if (have := _version(name))]
    with tempfile.TemporaryDirectory() as folder:
        constraint = Path(folder) / "kept.txt"
        constraint.write_text("".join(kept), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "--constraint", str(constraint), *wanted(course)], capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise CourseError(
            "What the course needs could not be installed. Is there a connection? (On Kaggle, switch it on: Settings, "
            f"Internet on.) Then run this cell again. pip says:\n{errors[-1]}"
        )
    importlib.invalidate_caches()  # Python remembers which packages weren't there


def _version(name: str) -> str:
    """The version of an installed package; empty when there is none."""
    try:
        return installed_version(name)
    except PackageNotFoundError:
        return ""


def _keep_on_drive(place: Path) -> None:
    """Have training runs written to the reader's Google Drive from now on, where the next machine goes on with them."""
    if "google.colab" not in sys.modules:
        print("KEEP_ON_DRIVE is for Colab. Kaggle keeps what lies in its working folder when you save a version.")
        return
    drive = importlib.import_module("google.colab.drive")
    try:
        drive.mount(str(place))
        runs = place / "MyDrive" / "emcad-course" / "runs"
        runs.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # Colab raises several kinds, for a refused permission as for a lost connection
        raise CourseError(
            "Your Google Drive could not be reached. Run this cell again and allow the access, or set KEEP_ON_DRIVE = "
            f"False: then training runs go when this machine goes. Colab says:\n{error}"
        ) from error
    os.environ["EMCAD_RUNS"] = str(runs)
    print(f"Training runs are kept in {runs}, and go on from there.")
