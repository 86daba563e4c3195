"""What notebooks cost is recorded, told to the reader, and held against what they take."""

import csv
import json

import pytest

from emcad_lib import costs
from emcad_lib.costs import COSTS_FILE, Cost, cost_table, excess, main, read_costs, record
from emcad_lib.files import CourseError
from emcad_lib.meter import Spent

COST = Cost("01_x", "ci", 1.5, 2.0, "measured", yardstick=0.05)
KEPT = Spent(minutes=9.0, processor_minutes=3.0, idle_minutes=0.9, memory_gb=3.9)


@pytest.fixture
def figures(tmp_path):
    """A folder of figures behind which a measured run of two notebooks stands."""
    (tmp_path / "figures" / ".state").mkdir(parents=True)
    manifest = {"profile": "ci", "figures": [{"patients": "phantom"}]}
    (tmp_path / "figures" / "manifest.json").write_text(json.dumps(manifest))
    for name, minutes in (("01_x", 0.512), ("02_y", 2.0)):
        state = {"fingerprint": "", "figures": [], "spent": {**vars(KEPT), "minutes": minutes}}
        (tmp_path / "figures" / ".state" / f"{name}.json").write_text(json.dumps(state))
    return tmp_path / "figures"


# ---- What the reader is told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "note", "basis", "in_table", "in_words"),
    [
        (0.4, "", "measured", "under 1", "under a minute, and up to 2.5 GB"),
        (1.2, "", "measured", "1", "about a minute, and up to 2.5 GB"),
        (2.6, "or 9 the first time", "measured", "3, or 9 the first time", "about 3 minutes, and up to 2.5 GB"),
        (5, "", "estimated", "5 (estimated)", "about 5 minutes, and up to 2.5 GB (estimated)"),
        (None, "hours", "estimated", "hours (estimated)", "hours, and up to 2.5 GB (estimated)"),
    ],
)
def test_costs_are_told_in_words_and_memory_is_rounded_up(minutes, note, basis, in_table, in_words):
    cost = Cost("01_x", "quick", minutes, 2.1, basis, note=note)

    assert (cost.in_table, cost.in_words, cost.memory) == (in_table, in_words, "2.5 GB")


def test_a_notebooks_table_holds_its_own_rows():
    rows = [COST, Cost("01_x", "paper", None, 8, "estimated", note="hours"), Cost("02_y", "ci", 3, 1, "measured")]

    assert cost_table({(row.notebook, row.profile): row for row in rows}, "01_x").splitlines()[2:] == [
        "| ci | 2 | 2 GB |",
        "| paper | hours (estimated) | 8 GB |",
    ]


# ---- What is too much ------------------------------------------------------------------------------------------------


def test_a_notebook_may_take_twice_what_is_recorded_and_a_minute_and_wait_for_a_busy_processor():
    assert excess(KEPT, COST) == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"processor_minutes": 3.2}, "4.1 minutes (recorded: 1.5; allowed here: 4.0)"),
        ({"idle_minutes": 1.1}, "4.1 minutes (recorded: 1.5; allowed here: 4.0)"),
        ({"memory_gb": 4.1}, "4.1 GB (recorded: 2; allowed: 4)"),
    ],
)
def test_one_that_takes_more_is_told_of_with_the_table(more, said):
    message = excess(Spent(**{**vars(KEPT), **more}), COST)

    assert said in message
    assert message.startswith("01_x took ")
    assert COSTS_FILE in message


def test_a_slower_machine_may_take_longer_and_a_faster_one_not_less():
    longer = Spent(**{**vars(KEPT), "processor_minutes": 6.0})

    assert excess(longer, COST, slowness=1.5)
    assert excess(longer, COST, slowness=2.0) == ""
    assert excess(KEPT, COST, slowness=0.1) == ""


# ---- What is recorded ------------------------------------------------------------------------------------------------


def test_a_measured_run_is_written_into_the_table_and_what_else_is_there_stays(figures, tmp_path):
    table = tmp_path / COSTS_FILE
    table.write_text(
        "notebook,profile,minutes,memory_gb,basis,yardstick,note\n"
        '02_y,ci,0.9,1.5,earlier,0.06,"and more, once"\n'
        "02_y,paper,,8.0,estimated,,hours\n"
    )

    assert record(figures, table, measure=0.0521) == ["01_x", "02_y"]
    assert list(csv.reader(table.open())) == [
        ["notebook", "profile", "minutes", "memory_gb", "basis", "yardstick", "note"],
        ["01_x", "ci", "0.51", "3.9", "measured", "0.052", ""],
        ["02_y", "ci", "2.0", "3.9", "measured", "0.052", "and more, once"],
        ["02_y", "paper", "", "8.0", "estimated", "", "hours"],
    ]
    assert read_costs(table)["02_y", "paper"] == Cost("02_y", "paper", None, 8.0, "estimated", None, "hours")


def test_a_run_of_a_readers_own_patients_is_not_recorded(figures, tmp_path):
    manifest = {"profile": "ci", "figures": [{"patients": "a reader's own"}]}
    (figures / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(CourseError, match="patients of yours. Record a run without --data"):
        record(figures, tmp_path / COSTS_FILE, measure=0.05)


def test_a_run_that_was_not_measured_is_refused(figures, tmp_path):
    (figures / ".state" / "02_y.json").write_text(json.dumps({"fingerprint": "", "figures": []}))

    with pytest.raises(CourseError, match=r"02_y\.json: this run wasn't measured.*--force"):
        record(figures, tmp_path / COSTS_FILE, measure=0.05)
    assert not (tmp_path / COSTS_FILE).exists()


def test_the_command_writes_the_courses_table_or_says_why_not(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMCAD_HOME", str(tmp_path))
    monkeypatch.setattr(costs, "yardstick", lambda: 0.05)

    assert main([str(figures)]) == 0
    assert len(read_costs(tmp_path / "figures" / "recorded" / COSTS_FILE)) == 2
    assert main([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}: no notebook has run into this folder yet. Run: python -m emcad_lib.figures --out" in said
