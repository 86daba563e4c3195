"""The numbers behind the figures: what is stored of them, and what is noticed when they move."""

import os

import pandas as pd
import pytest

from emcad_lib import compared
from emcad_lib.compared import differences, main, store, tolerance

TABLE = {"patient": ["A", "B", "C"], "Dice": [0.5, 0.8, None], "voxels": [1000, 0, 40], "seconds": [1.5, 2.5, 3.5]}


def write(folder, figure, **changes):
    """A table behind a figure, as a run leaves it."""
    folder.mkdir(exist_ok=True)
    pd.DataFrame(TABLE | changes).to_csv(folder / f"{figure}.csv", index=False)


@pytest.fixture
def stored(tmp_path):
    """Two figures of notebook 01, and one of 02, stored."""
    for figure in ("01-one", "01-two", "02-one"):
        write(tmp_path / "first", figure)
    assert [store(name, tmp_path / "first", tmp_path / "stored") for name in ("01_x", "02_y")] == [2, 1]
    return tmp_path / "stored"


@pytest.fixture
def run(tmp_path):
    """A later run of notebook 01, so far with the same numbers."""
    for figure in ("01-one", "01-two"):
        write(tmp_path / "run", figure)
    return tmp_path / "run"


def test_a_run_with_the_same_numbers_differs_in_nothing_however_long_it_took(run, stored):
    write(run, "01-one", seconds=[9, 9, 9])

    assert differences("01_x", run, stored) == ""


def test_what_a_clock_has_measured_is_not_stored_and_numbers_are_rounded(run, stored):
    write(run, "01-one", Dice=[0.123456789, 1 / 3, None])
    store("01", run, stored)

    assert (stored / "01-one.csv").read_text() == "patient,Dice,voxels\nA,0.12346,1000\nB,0.33333,0\nC,,40\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Dice": [0.5, 0.81, None]}, "'Dice': 1 of 3 rows moved, row 2 by most: 0.81; stored is 0.8."),
        ({"Dice": [0.51, 0.9, None]}, "'Dice': 2 of 3 rows moved, row 2 by most: 0.9; stored is 0.8."),
        ({"Dice": [0.5, None, None]}, "'Dice': 1 of 3 rows moved, row 2 by most: nan; stored is 0.8."),
        ({"Dice": [0.5, 0.8, 0.1]}, "'Dice': 1 of 3 rows moved, row 3 by most: 0.1; stored is nan."),
        ({"voxels": [1000, 1, 40]}, "'voxels': 1 of 3 rows moved, row 2 by most: 1; stored is 0."),
        ({"patient": ["A", "D", "C"]}, "'patient': 1 of 3 rows moved, row 2 by most: D; stored is B."),
    ],
)
def test_a_number_or_a_word_that_moves_is_told_with_its_figure_column_and_row(run, stored, changes, said):
    write(run, "01-two", **changes)

    first, *_, last = differences("01_x", run, stored).splitlines()
    assert first.startswith("01-two")
    assert said in first
    assert last == "If this is meant: python -m emcad_lib.compared 01"


def test_a_missing_and_a_surplus_column_are_noticed(run, stored):
    pd.DataFrame(TABLE).drop(columns="Dice").to_csv(run / "01-one.csv", index=False)
    write(run, "01-two", mine=[1, 2, 3])

    one, two, _ = differences("01", run, stored).splitlines()
    assert one == "01-one: the columns are ['patient', 'voxels']; stored are ['patient', 'Dice', 'voxels']."
    assert two.startswith("01-two: the columns are ['patient', 'Dice', 'voxels', 'mine']; stored are")


def test_a_missing_and_a_surplus_row_are_noticed(run, stored):
    pd.DataFrame(TABLE).head(2).to_csv(run / "01-one.csv", index=False)
    pd.DataFrame(TABLE).iloc[[0, 1, 2, 2]].to_csv(run / "01-two.csv", index=False)

    one, two, _ = differences("01", run, stored).splitlines()
    assert one == "01-one: there are 2 rows; stored are 3."
    assert two == "01-two: there are 4 rows; stored are 3."


def test_a_missing_and_a_surplus_figure_are_noticed(run, stored):
    (run / "01-one.csv").rename(run / "01-three.csv")

    one, three, _ = differences("01", run, stored).splitlines()
    assert one == "01-one: there is no such figure any more."
    assert three == "01-three: nothing is stored."


def test_storing_anew_replaces_the_tables_of_that_notebook_alone(run, stored):
    write(run, "01-two", Dice=[0.1, 0.2, 0.3])
    (run / "01-one.csv").unlink()
    other = (stored / "02-one.csv").read_bytes()

    assert store("01_x", run, stored) == 1
    assert differences("01_x", run, stored) == ""
    assert sorted(path.name for path in stored.iterdir()) == ["01-two.csv", "02-one.csv"]
    assert (stored / "02-one.csv").read_bytes() == other


@pytest.mark.parametrize(
    ("figure", "allowed"),
    [
        ("99-one", [0.1, 0.001, 0]),
        ("98-one", [20.1, 20.001, 20]),
        ("98-two", [50.1, 50.001, 50]),
        ("98-twos", [20.1, 20.001, 20]),
    ],
)
def test_a_number_may_move_by_a_thousandth_and_in_some_figures_by_a_share_of_the_largest(monkeypatch, figure, allowed):
    monkeypatch.setattr(compared, "LOOSE", {"98-two": 0.5, "98-*": 0.2})

    assert list(tolerance(figure, pd.Series([-100.0, 1.0, 0.0]))) == pytest.approx(allowed, abs=1e-5)


# ---- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Two notebooks of the course, of which a run leaves a table each; the settings of each run."""
    calls = []

    def make_figures(notebooks, out, **settings):
        calls.append(([path.stem for path in notebooks], settings, os.environ["EMCAD_DATA_DIR"]))
        (out / "data").mkdir(parents=True)
        for path in notebooks:
            write(out / "data", f"{path.stem[:2]}-one")

    for name in ("01_x", "02_y"):
        (tmp_path / "notebooks" / f"{name}.ipynb").parent.mkdir(exist_ok=True)
        (tmp_path / "notebooks" / f"{name}.ipynb").touch()
    monkeypatch.setattr(compared, "make_figures", make_figures)
    monkeypatch.setattr(compared, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(compared, "STORED", tmp_path / "stored")
    for name in ("EMCAD_HOME", "EMCAD_RUNS", "EMCAD_DATA_DIR"):
        monkeypatch.setenv(name, "/of/the/reader")
    return calls


@pytest.mark.parametrize(("numbers", "run"), [([], ["01_x", "02_y"]), (["02"], ["02_y"])])
def test_the_command_runs_all_notebooks_or_some_on_phantoms_in_the_profile_ci(course, tmp_path, capsys, numbers, run):
    assert main(numbers) == 0

    assert course == [(run, {"profile": "ci"}, "")]
    assert sorted(path.name for path in (tmp_path / "stored").iterdir()) == [f"{name[:2]}-one.csv" for name in run]
    assert f"{len(run)} tables stored" in capsys.readouterr().out


def test_a_number_of_no_notebook_is_refused_before_anything_runs(course, capsys):
    assert main(["02", "7"]) == 1
    assert "no notebook 7. Give two digits" in capsys.readouterr().err
    assert course == []
