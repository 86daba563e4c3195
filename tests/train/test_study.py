"""The batch-size study: three equal runs, made once."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from emcad_lib.data.slices import Cache
from emcad_lib.files import write_json
from emcad_lib.profiles import PROFILES
from emcad_lib.train import engine, study
from emcad_lib.train.ledger import HISTORY, Ledger
from emcad_lib.train.published import published_results
from emcad_lib.train.study import batch_size_study, instability, recorded_runs, settled, study_config, summarise

TINY = replace(PROFILES["ci"], image_size=32, epochs=1, slices_per_epoch=8, batch_sizes=(2, 4))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ledgers(tiny_cache, runs):
    return batch_size_study(tiny_cache, runs, TINY, seed=3, show=False)


def test_the_runs_of_a_study_differ_in_the_batch_size_only(ledgers, tiny_cache):
    first, second = (ledger.config for ledger in ledgers.values())

    assert list(ledgers) == [2, 4]
    assert {key for key in first if first[key] != second[key]} == {"batch_size", "name"}
    assert (first["batch_size"], first["seed"], first["image_size"], first["epochs"]) == (2, 3, 32, 1)
    assert ledgers[2].run["data"] == ledgers[4].run["data"]
    assert ledgers[2].run["data"]["train"] == Cache(tiny_cache).names("train")


def test_they_see_the_same_number_of_slices_in_different_numbers_of_updates(ledgers):
    assert [ledger.history["samples"].iloc[-1] for ledger in ledgers.values()] == [8, 8]
    assert [ledger.history["updates"].iloc[-1] for ledger in ledgers.values()] == [4, 2]


def test_a_study_that_is_done_is_read_and_not_repeated(ledgers, tiny_cache, runs, monkeypatch):
    monkeypatch.setattr(engine, "train_one_epoch", None)

    again = batch_size_study(tiny_cache, runs, TINY, seed=3, show=False)

    for size, ledger in ledgers.items():
        assert again[size].folder == ledger.folder
        pd.testing.assert_frame_equal(again[size].history, ledger.history)


def test_a_study_that_was_interrupted_makes_what_is_missing(tiny_cache, tmp_path, monkeypatch):
    original, calls = study.train, []

    def interrupted(config, show):
        calls.append(config.batch_size)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(config, show)

    monkeypatch.setattr(study, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch_size_study(tiny_cache, tmp_path, TINY, show=False)
    first = next(tmp_path.iterdir())
    written = (first / "run.json").stat().st_mtime_ns

    done = batch_size_study(tiny_cache, tmp_path, TINY, show=False)

    assert all(ledger.finished for ledger in done.values())
    assert done[2].folder == first
    assert (first / "run.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("setting", [{"learning_rate": 0.5}, {"seed": 4}, {"epochs": 9}, {"regions": ("core",)}])
def test_a_run_has_another_name_when_a_setting_differs(setting, tiny_cache):
    def name(**settings):
        return study_config(tiny_cache, "runs", TINY, **settings).name

    assert name().startswith("batch16-seed0-")
    assert name() == name()
    assert name(**setting) != name()


def test_a_run_has_another_name_when_the_code_or_the_data_changes(tiny_cache, tmp_path, monkeypatch):
    name = study_config(tiny_cache, "runs", TINY).name
    write_json(tmp_path / "manifest.json", Cache(tiny_cache).manifest | {"split_seed": 99})
    other_data = study_config(tmp_path, "runs", TINY).name
    monkeypatch.setattr(study, "code_hash", lambda: "other code")
    other_code = study_config(tiny_cache, "runs", TINY).name

    assert len({name, other_data, other_code}) == 3


def test_the_name_does_not_depend_on_where_cache_and_runs_lie(tiny_cache, tmp_path):
    moved = tmp_path / "moved"
    moved.symlink_to(tiny_cache)

    names = {study_config(cache, runs, TINY, batch_size=2).name for cache, runs in ((tiny_cache, "a"), (moved, "b"))}

    assert len(names) == 1


def test_a_run_of_another_lesson_has_a_name_of_its_own(tiny_cache):
    assert study_config(tiny_cache, "runs", TINY, name="first-steps").name.startswith("first-steps-")


def history(dice, val_loss, seconds):
    rows = []
    for epoch, (score, loss, time) in enumerate(zip(dice, val_loss, seconds, strict=True), start=1):
        row = dict.fromkeys(HISTORY, 0.0) | {"epoch": epoch, "updates": 10 * epoch, "samples": 60 * epoch}
        rows.append(row | {"dice_patient": score, "dice_slice_empty0": score / 2, "val_loss": loss, "seconds": time})
    return rows


def test_the_table_has_best_and_mean_speed_and_stability_of_each_run(tmp_path):
    rows = history(dice=[0.2, 0.55, 0.6, 0.5], val_loss=[0.9, 0.6, 0.7, 0.5], seconds=[10, 20, 30, 40])

    table = summarise({6: Ledger(tmp_path, {}, rows)}).iloc[0]

    assert (table["batch_size"], table["epochs"], table["updates"], table["samples"]) == (6, 4, 40, 240)
    assert table["seconds"] == 40
    assert table["best_patient"] == 0.6
    assert table["mean_patient"] == pytest.approx((0.2 + 0.55 + 0.6 + 0.5) / 4)
    assert table["best_slice_empty0"] == 0.3
    assert table["last_patient"] == 0.5
    assert (table["settled_updates"], table["settled_samples"], table["settled_seconds"]) == (20, 120, 20)
    assert table["instability"] == pytest.approx(0.1 / 0.5)  # up by 0.1, down by 0.3 and 0.2


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ([0.5, 0.6, 0.7, 0.8], 60),
        ([0.6, 0.1, 0.5, 0.6], 180),  # touching the level isn't enough
        ([0.6, 0.7, 0.8, 0.4], math.nan),
        ([0.1, 0.2, 0.3, 0.5], 240),
        ([0.1, 0.2, 0.3, 0.49], math.nan),
    ],
)
def test_a_run_has_settled_when_it_stays_above_the_level(dice, expected):
    run = pd.DataFrame(history(dice, [1.0] * 4, range(4)))

    assert settled(run, "samples", 0.5) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([5, 4, 3], 0),
        ([5, 4, 4.5, 3], 0.2),
        ([50, 40, 45, 30], 0.2),  # whatever its unit
        ([1, 0, 1], 1),
        ([1, 2], math.inf),
        ([1, 1], math.nan),
        ([1], math.nan),
    ],
)
def test_instability_is_the_part_of_the_way_down_that_is_taken_back(losses, expected):
    assert instability(losses) == pytest.approx(expected, nan_ok=True)


def test_recorded_runs_are_found_by_their_way_and_come_apart_by_batch_size_and_seed():
    ways = [("samples", "fixed", 6, 1, 0), ("samples", "fixed", 6, 1, 1), ("samples", "fixed", 25, 5, 0)]
    ways += [("updates", "scaled", 6, 1, 0)]
    columns = ["budget", "rate", "batch_size", "accumulate", "seed"]
    table = pd.DataFrame([dict(zip(columns, way, strict=True), epoch=e) for way in ways for e in (1, 2)])

    found = recorded_runs(table)

    assert list(found) == [6]
    assert [history["seed"].tolist() for history in found[6]] == [[0, 0], [1, 1]]
    assert found[6][1].index.tolist() == [0, 1]
    assert list(recorded_runs(table, accumulate=5)) == [25]
    assert len(recorded_runs(table, "updates", "scaled")[6]) == 1


def test_the_published_table_holds_the_papers_numbers_and_nothing_else():
    table = published_results().set_index("run")

    assert table.loc["batch size 25", "best_dice"] == 0.365
    first = table.loc["first model"]
    assert (first["best_dice"], first["mean_dice"], first["mean_dice_spread"]) == (0.31, 0.285, 0.015)
    assert table[["best_dice", "mean_dice", "mean_dice_spread"]].count().sum() == 4
    assert set(table["source"]) == {"Uzor et al. 2025, arXiv 2509.05431"}
