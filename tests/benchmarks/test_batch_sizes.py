"""The study of batch sizes: what is said to be equal is equal, nothing is trained twice, and what was recorded."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway

from emcad_lib.evaluate.metrics import DEFINITIONS
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.study import describe, recorded_runs


@pytest.fixture
def batch_sizes(script):
    return script("batch_sizes")


@pytest.fixture
def tiny(batch_sizes, monkeypatch, tiny_cache, tmp_path):
    profile = replace(batch_sizes.QUICK, image_size=32, epochs=1, slices_per_epoch=8)
    monkeypatch.setattr(batch_sizes, "phantom_cache", lambda work: tiny_cache)
    monkeypatch.setattr(batch_sizes, "QUICK", profile)
    monkeypatch.setattr(batch_sizes, "BATCH_SIZES", (2, 4, 16))
    monkeypatch.setattr(batch_sizes, "MIDDLE", 4)
    monkeypatch.setattr(batch_sizes, "TABLE", tmp_path / "table.csv")
    monkeypatch.setattr(batch_sizes, "LEDGERS", tmp_path / "ledgers.json")
    return batch_sizes


def test_each_budget_holds_what_it_says_and_a_second_call_trains_nothing(tiny, tmp_path, monkeypatch):
    assert tiny.main(["--seeds", "3", "--work", str(tmp_path), "--record"]) == 0

    table = pd.read_csv(tiny.TABLE).set_index(["budget", "rate", "accumulate", "batch_size"]).sort_index()
    ledgers = json.loads(tiny.LEDGERS.read_text())
    assert len(table) == 5 * 3 + 1
    for budget, rate in table.index.droplevel(["accumulate", "batch_size"]).unique():
        assert table.loc[(budget, rate, 1), budget].nunique() == 1
    assert table.loc[("samples", "fixed", 1), "updates"].tolist() == [4, 2, 1]
    assert table.loc[("updates", "scaled", 1), "samples"].tolist() == [4, 8, 32]
    assert table.loc[("samples", "fixed", 5, 16), ["updates", "samples"]].tolist() == [1, 8]
    assert set(table["run"]) == set(ledgers)
    assert len(ledgers) == 13  # of 16: the middle size is the same run in four ways
    assert str(tmp_path) not in tiny.LEDGERS.read_text()

    rates = {way: ledgers[run]["config"]["learning_rate"] for way, run in table["run"].items()}
    assert [rates["updates", "scaled", 1, size] for size in (2, 4, 16)] == pytest.approx([5e-4, 1e-3, 4e-3])
    assert {rates["samples", "paper", 1, size] for size in (2, 4, 16)} == {1e-4}
    monkeypatch.setattr("emcad_lib.train.engine.train_one_epoch", None)
    assert tiny.main(["--seeds", "3", "--work", str(tmp_path)]) == 0


def test_the_patients_are_those_of_a_lesson(batch_sizes, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(batch_sizes, "make_phantoms", lambda folder, patients: made.append(patients))
    monkeypatch.setattr(batch_sizes, "preprocess", lambda folder, cache: None)

    batch_sizes.phantom_cache(tmp_path)

    assert made == [batch_sizes.QUICK.patients]


def test_equal_updates_are_equal_to_the_last_one(batch_sizes):
    ways = [way for way in batch_sizes.ways() if way.budget == "updates"]
    for way in ways:
        config = batch_sizes.configuration(way, 0, Path("work"), Path("cache"))
        assert -(-config.slices_per_epoch // config.batch_size) == batch_sizes.QUICK.slices_per_epoch / 16


def test_the_recorded_runs_are_three_of_each_way_with_the_settings_of_today_and_one_set_of_patients(batch_sizes):
    table, ledgers = pd.read_csv(batch_sizes.TABLE), json.loads(batch_sizes.LEDGERS.read_text())
    assert set(table["run"]) == set(ledgers)
    for way in batch_sizes.ways():
        for seed in (0, 1, 2):
            config = batch_sizes.configuration(way, seed, Path("work"), Path("cache"))
            rows = table[(table[list(way._fields)] == pd.Series(way._asdict())).all(axis=1) & (table["seed"] == seed)]
            assert set(rows["run"]) == {config.name}
            assert rows["epoch"].tolist() == list(range(1, config.epochs + 1))
            assert rows["samples"].iloc[-1] == config.epochs * config.slices_per_epoch
            recorded = TrainConfig("", "", config.name).settings() | ledgers[config.name]["config"]
            assert recorded == config.settings()
    assert len({json.dumps(ledger["data"], sort_keys=True) for ledger in ledgers.values()}) == 1
    assert all(ledger["finished"] for ledger in ledgers.values())
    for name in DEFINITIONS:
        assert table[f"dice_{name}"].between(0, 1).all()


def values(table, column, **way):
    return {size: [describe(run)[column] for run in runs] for size, runs in recorded_runs(table, **way).items()}


def means(table, column, **way):
    return {size: np.mean(seeds) for size, seeds in values(table, column, **way).items()}


def test_what_the_lessons_say_in_words_is_what_was_recorded(batch_sizes):
    """Notebooks 09 and 10. If a new recording says otherwise, rewrite their conclusions."""
    table = pd.read_csv(batch_sizes.TABLE)

    # Dice at the end, with one rate: the sizes differ by less than the seeds; with scaled rates by a little more.
    for rate, less in (("fixed", True), ("scaled", False)):
        dice = values(table, "last_patient", rate=rate).values()
        assert (np.ptp([np.mean(seeds) for seeds in dice]) < np.mean([np.ptp(seeds) for seeds in dice])) == less
        assert f_oneway(*dice).pvalue > 0.05
    # The losses: 25 is clearly behind. Scaled, they nearly coincide: 25 has gained, and each seed of 6 has lost.
    fixed, scaled = values(table, "last_val_loss"), values(table, "last_val_loss", rate="scaled")
    assert min(fixed[25]) > max(fixed[6] + fixed[16]) + 0.05
    assert max(scaled[25]) < min(fixed[25])
    assert all(longer < shorter for longer, shorter in zip(fixed[6], scaled[6], strict=True))
    assert np.ptp([np.mean(seeds) for seeds in scaled.values()]) < 0.03
    assert min(map(np.mean, fixed.values())) < min(map(np.mean, scaled.values()))
    # The training loss: 16 is the lowest at the end, and the seeds lie further apart than the sizes.
    ends = {size: [run["train_loss"].iloc[-1] for run in runs] for size, runs in recorded_runs(table).items()}
    assert min(ends, key=lambda size: np.mean(ends[size])) == 16
    assert np.ptp([np.mean(seeds) for seeds in ends.values()]) < np.mean([np.ptp(seeds) for seeds in ends.values()])
    # Equal updates: 25 is ahead; equal slices: none is clearly.
    planned = values(table, "last_patient", budget="updates")
    assert min(planned[25]) > max(planned[6])
    assert means(table, "last_patient")[25] < means(table, "last_patient")[16]
    # In parts: rougher on average, with seeds that overlap; Dice begins like that of 6, the loss ends like that of 25.
    rough, calm = values(table, "instability", accumulate=5)[25], values(table, "instability")[25]
    assert np.mean(rough) > np.mean(calm)
    assert min(rough) < max(calm)
    first = {
        name: np.mean([run["dice_patient"].iloc[0] for run in runs])
        for name, runs in {**recorded_runs(table), "parts": recorded_runs(table, accumulate=5)[25]}.items()
    }
    assert abs(first["parts"] - first[6]) < 0.1 < abs(first["parts"] - first[25])
    assert min(values(table, "last_val_loss", accumulate=5)[25]) > max(fixed[6] + fixed[16])
    # The speed: by updates 25 is the first, also as planned. By slices the last with one rate, the first with scaled.
    updates, planned = means(table, "settled_updates"), values(table, "settled_updates", budget="updates")
    assert updates[25] < updates[16] < updates[6]
    assert np.mean(planned[25]) < np.mean(planned[16])
    assert np.isnan(planned[6]).sum() == 2
    slices, scaled = means(table, "settled_samples"), means(table, "settled_samples", rate="scaled")
    assert max(slices, key=slices.get) == 25
    assert 0 < slices[25] - np.median(list(slices.values())) < 400
    assert min(scaled, key=scaled.get) == 25
    # Stability: at one rate 25 is the calmest on average, though not against each seed of 6; scaled, 6 is the calmest.
    fixed, scaled = values(table, "instability"), values(table, "instability", rate="scaled")
    assert np.mean(fixed[25]) < np.mean(fixed[16]) < np.mean(fixed[6])
    assert min(fixed[6]) == pytest.approx(min(fixed[25]), abs=0.01)
    assert max(scaled[6]) < min(scaled[16] + scaled[25])
    assert np.mean(scaled[25]) < np.mean(scaled[16])
    # Two recipes, two scores: each wins by one of them, with every batch size.
    for column, better in (("best_slice_published", "paper"), ("last_patient", "fixed")):
        scores = {rate: means(table, column, rate=rate) for rate in ("paper", "fixed")}
        assert all(max(scores, key=lambda rate, size=size: scores[rate][size]) == better for size in (6, 16, 25))
