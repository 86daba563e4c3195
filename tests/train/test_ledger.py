"""The record of a run: run.json and history.csv."""

import math
import shutil

import pytest
import torch

import emcad_lib
from emcad_lib.files import CourseError, read_json
from emcad_lib.train import ledger as ledger_module
from emcad_lib.train.ledger import HISTORY, Ledger, code_hash, describe_environment, is_run, read_ledger


def row(epoch, dice):
    return {column: 0.1 * epoch for column in HISTORY} | {"epoch": epoch, "updates": 10 * epoch, "dice_patient": dice}


def new_run(folder):
    ledger = Ledger(folder, {"config": {"name": "first", "seed": 3}, "started": "2025-01-01", "finished": None})
    ledger.begin()
    return ledger


def test_a_ledger_reads_back_as_it_was_written(tmp_path):
    ledger = new_run(tmp_path / "first")
    ledger.record(row(1, 1 / 3))
    ledger.record(row(2, math.nan))

    back = read_ledger(tmp_path / "first")

    assert (back.name, back.config, back.finished) == ("first", {"name": "first", "seed": 3}, False)
    assert back.history["dice_patient"][0] == 1 / 3  # to the last bit
    assert math.isnan(back.history["dice_patient"][1])
    assert list(back.history.columns) == list(HISTORY)
    assert back.history["updates"].tolist() == [10, 20]


def test_a_run_without_an_epoch_reads_as_an_empty_history_and_has_no_best(tmp_path):
    new_run(tmp_path)

    back = read_ledger(tmp_path)

    assert back.history.empty
    with pytest.raises(CourseError, match=f"{tmp_path.name}: no epoch of this run is done yet. Train it on first"):
        _ = back.best


def test_the_best_epoch_is_the_first_with_the_highest_dice_per_patient(tmp_path):
    ledger = new_run(tmp_path)
    for epoch, dice in enumerate([0.2, 0.7, 0.6, 0.7], start=1):
        ledger.record(row(epoch, dice))

    assert ledger.best["epoch"] == 2


def test_a_finished_run_says_so_with_its_seconds(tmp_path):
    new_run(tmp_path).finish(12.345)

    back = read_ledger(tmp_path)

    assert back.finished
    assert back.run["seconds"] == 12.35


def test_no_run_and_a_broken_run_are_told_apart(tmp_path):
    assert not is_run(tmp_path)
    with pytest.raises(CourseError, match=f"{tmp_path.name}: there is no run here.*Give the folder of a training"):
        read_ledger(tmp_path)

    for file, content in (("history.csv", "epoch,loss\n1,2\n"), ("run.json", "{")):
        new_run(tmp_path)
        (tmp_path / file).write_text(content)

        with pytest.raises(
            CourseError, match=f"{tmp_path.name}: .*can't be read.*train again under another --name"
        ) as error:
            read_ledger(tmp_path)
        assert "Delete" not in str(error.value)


def test_a_folder_counts_as_a_run_only_when_its_history_is_there_too(tmp_path, monkeypatch):
    """Whatever moment the process dies at, a run can be read."""
    monkeypatch.setattr(Ledger, "write_run", lambda self: None)

    new_run(tmp_path)

    assert (tmp_path / "history.csv").exists()
    assert not is_run(tmp_path)


def test_the_environment_names_code_versions_and_machine_and_no_path():
    environment = describe_environment(torch.device("cpu"))

    assert environment["code"]["sha256"] == code_hash()
    assert environment["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert environment["versions"]["emcad_lib"] == emcad_lib.__version__
    assert environment["machine"]["device"] == "cpu"
    assert "/" not in str(environment)


def test_the_code_hash_changes_with_the_code_of_the_four_rooms_only(tmp_path, monkeypatch):
    copy = tmp_path / "emcad_lib"
    shutil.copytree(ledger_module.Path(emcad_lib.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(emcad_lib, "__file__", str(copy / "__init__.py"))
    before = code_hash()

    (copy / "show" / "plots.py").write_text("colour = 'red'\n")
    assert code_hash() == before

    (copy / "train" / "losses.py").write_text("loss = 0\n")
    assert code_hash() != before


def test_run_json_is_readable_json(tmp_path):
    new_run(tmp_path)

    assert read_json(tmp_path / "run.json")["config"]["seed"] == 3
