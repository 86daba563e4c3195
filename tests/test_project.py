"""The files around the code agree with each other, and the house keeps its rules."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement

import emcad_lib
from emcad_lib.setup_cell import address, setup_cell
from emcad_lib.train.published import published_results
from emcad_lib.train.study import recorded_runs

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), flags=re.M))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
DEPENDENCIES = [
    Requirement(line)
    for lines in (PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"].values())
    for line in lines
]

# Each room may import itself, the rooms to its left, and the ground that all stand on.
ROOMS = ("data", "model", "evaluate", "train", "show")
GROUND = {"files", "progress", "profiles"}
MODULES = sorted((ROOT / "emcad_lib").rglob("*.py"))


def project_files() -> list[Path]:
    """What belongs to the project: what git keeps, or every file where there is no git (an unpacked archive)."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    own = {".venv", "data", "runs", "build", "dist"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not own & set(path.relative_to(ROOT).parts[:1])]


FILES = project_files()


# ---- What is installed -----------------------------------------------------------------------------------------------


def test_requirements_hold_nothing_but_exact_pins():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if line and not line.startswith("#") and line.partition("==")[0] not in PINS]

    assert others == []


@pytest.mark.parametrize("requirement", DEPENDENCIES, ids=str)
def test_each_dependency_is_pinned_within_its_range_and_installed_so(requirement):
    pin = PINS[requirement.name]

    assert requirement.specifier, "a range is missing"
    assert requirement.specifier.contains(pin)
    assert version(requirement.name).partition("+")[0] == pin  # torch 2.14.1+cpu is torch 2.14.1


def test_the_conda_environment_is_conda_forge_only_and_installs_the_same_pins_through_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *from_conda, through_pip = environment["dependencies"]

    assert set(environment["channels"]) == {"conda-forge", "nodefaults"}
    assert [re.split("[=<>]", name)[0] for name in from_conda] == ["python", "pip"]
    # Lines of a requirements file, which knows no option but these: pip refuses --no-deps there.
    assert through_pip == {"pip": ["-r requirements.txt", "-e ."]}


def test_the_conda_environments_python_is_one_that_the_project_supports():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = Requirement(environment["dependencies"][0].replace("=", "==") + ".*")
    supported = Requirement(f"python{PYPROJECT['project']['requires-python']}")

    assert supported.specifier.contains(str(python.specifier).removeprefix("==").replace("*", "0"))


def test_the_setup_cell_is_plain_python_without_a_shell():
    cell = setup_cell()

    assert ast.parse(cell)  # so it holds no !pip and no %pip, where an unquoted >= would be a redirect
    assert "shell=True" not in cell
    assert address() in cell


def test_the_setup_cell_does_nothing_where_the_course_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))

    exec(setup_cell(), {})

    assert list(tmp_path.iterdir()) == []


# ---- The two commands ------------------------------------------------------------------------------------------------


def make_says(target: str) -> str:
    """The commands that make would run for a target, where everything is set up."""
    make = ["make", "--dry-run", "--always-make", target]
    return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_continuous_integration_runs_the_readmes_test_command():
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()[-1]

    assert last.split() == ["exec", "make", "test"]
    assert re.search(r"^ {4}make test\b", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)


def test_make_test_runs_the_whole_suite_and_the_checks_of_the_code():
    commands = [line.split("/")[-1] for line in make_says("test").splitlines()]

    selection = {"-k", "-m", "--ignore", "--deselect", "tests"}
    (pytest_command,) = [command.split() for command in commands if command.startswith("python -m pytest")]
    assert not any(word.startswith(tuple(selection)) for word in pytest_command[3:])
    assert "ruff check ." in commands
    assert "mypy" in commands


def test_make_figures_runs_the_notebooks_in_the_quick_profile():
    assert "python -m emcad_lib.figures --profile quick" in make_says("figures")


def test_make_installs_exactly_the_pinned_requirements():
    installs = [line for line in make_says("setup").splitlines() if "pip install" in line]

    assert len(installs) == 2
    assert installs[0].endswith("-r requirements.txt")
    assert "--no-deps" in installs[1]
    assert installs[1].endswith("-e .")


@pytest.mark.parametrize("target", ["figures", "test", "lab", "notebooks", "lint"])
def test_every_command_sets_up_first(target):
    assert "-m venv" in make_says(target)


# ---- What git keeps --------------------------------------------------------------------------------------------------


def test_the_licence_is_the_same_everywhere():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text
    assert PYPROJECT["project"]["license"] == CITATION["license"] == "Apache-2.0"


def test_the_citation_has_what_the_format_asks_for_and_the_projects_version():
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert str(CITATION["version"]) == PYPROJECT["project"]["version"] == emcad_lib.__version__
    assert CITATION["repository-code"] == PYPROJECT["project"]["urls"]["Repository"]


def test_no_volumes_and_arrays_are_kept():
    scans = (".nii", ".nii.gz", ".npy", ".npz", ".h5", ".hdf5", ".pt", ".pth", ".mha", ".dcm")

    assert [path for path in FILES if path.name.lower().endswith(scans)] == []


@pytest.mark.parametrize(
    "path",
    [
        "data/phantom/Phantom_000/x",
        "runs/quick/run.json",
        "figures/.state/03.json",
        "figures/.writing-1-a.png",
        ".venv/x",
    ],
)
def test_what_a_reader_makes_is_ignored(path):
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    places = ["/" + path, *(part for part in Path(path).parts), *(part + "/" for part in Path(path).parts)]

    assert any(
        place.startswith(pattern) if pattern.startswith("/") else fnmatch(place, pattern)
        for pattern in patterns
        for place in places
    )


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(r"(?<![\w.~-])/(work|root|Users|home/(?!me/))")  # /home/me/ stands for the reader's own
    texts = {".py", ".md", ".toml", ".yml", ".txt", ".cff", ".csv", ".json", ".ipynb", ""}
    own = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in FILES
        if path.suffix in texts and path != own and path.relative_to(ROOT).parts[:2] != ("tests", "notebooks")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if place.search(line)
    ]

    assert found == []


# ---- The house -------------------------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """The modules of emcad_lib that a file imports anywhere, without the package's name: "data.brats", "files"."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            is_package = (ROOT / base.replace(".", "/")).is_dir() and base.startswith("emcad_lib")
            names |= {f"{base}.{alias.name}" for alias in node.names} if is_package else {base}
    return {name.removeprefix("emcad_lib.") for name in names if name.startswith("emcad_lib.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "emcad_lib")))
def test_imports_point_one_way_between_the_rooms(path):
    room = path.relative_to(ROOT / "emcad_lib").parts[0].removesuffix(".py")
    reached = {name.partition(".")[0] for name in imported(path)}

    if room in ROOMS:
        assert reached <= GROUND | set(ROOMS[: ROOMS.index(room) + 1])
    if room in GROUND:
        assert reached <= GROUND


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "emcad_lib")))
def test_a_module_fits_on_a_few_screens(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_no_code_insists_on_a_gpu():
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in FILES
        if path.suffix in (".py", ".ipynb") and path != Path(__file__)
        for match in re.finditer(r"\.cuda\(|(?:device=|\.to\()\s*\\?[\"']cuda", path.read_text(encoding="utf-8"))
    ]

    assert found == []


def test_every_module_of_the_library_has_a_docstring():
    texts = {path: path.read_text(encoding="utf-8") for path in MODULES}
    bare = [path.name for path, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))]

    assert bare == []


# ---- What can be compared with what ----------------------------------------------------------------------------------


def test_our_rows_of_the_reference_table_are_what_was_recorded():
    recorded = ROOT / "figures" / "recorded"
    table = pd.read_csv(recorded / "reference_results.csv").set_index("network")
    four = pd.read_csv(recorded / "four_scores_real_patients.csv").set_index("definition")["score"]
    whole = pd.read_csv(recorded / "reference_weights_real_patients.csv")["dice"]
    regions = pd.read_csv(recorded / "regions_real_patients.csv").groupby("region")["dice"].mean()
    study = recorded_runs(pd.read_csv(recorded / "batch_sizes.csv"))
    quick = [run["dice_patient"].iloc[-1] for run in study[16]]
    paper = published_results().set_index("run")

    def row(name):
        return table.loc[name, ["whole", "core", "enhancing"]].dropna().tolist()

    assert row("another network, once") == [four["slice_empty0"]]
    assert row("the same predictions") == [four["patient"]]
    assert row("ours, shipped: whole tumour") == [round(whole.mean(), 3)]
    assert row("ours, shipped: three regions") == regions.loc[["whole", "core", "enhancing"]].round(3).tolist()
    assert row("ours, quick profile: three seeds") == [round(sum(quick) / 3, 3)]
    assert row("EMCAD, first model: mean") == [paper.loc["first model", "mean_dice"]]
    assert table.loc["EMCAD, first model: mean", "whole_spread"] == paper.loc["first model", "mean_dice_spread"]
    assert row("EMCAD, batch of 25: best") == [paper.loc["batch size 25", "best_dice"]]


def test_the_readmes_reference_table_has_a_row_for_each_result():
    table = pd.read_csv(ROOT / "figures" / "recorded" / "reference_results.csv")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    for number, row in enumerate(table.itertuples(), start=1):
        (line,) = [line for line in readme.splitlines() if f"reference_results_{number}_whole-->" in line]
        for column in ("whole", "whole_spread", "core", "enhancing"):
            assert (f"reference_results_{number}_{column}-->" in line) == (not pd.isna(getattr(row, column)))
