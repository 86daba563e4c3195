"""The study of batch sizes: what is said to be equal is equal, and nothing is trained twice."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def batch_sizes(monkeypatch, tiny_cache, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import batch_sizes

    monkeypatch.setattr(batch_sizes, "phantom_cache", lambda left_out, work: tiny_cache)
    monkeypatch.setattr(batch_sizes, "SETTINGS", {"image_size": 32, "epochs": 1, "validate_patients": 1})
    monkeypatch.setattr(batch_sizes, "BATCH_SIZES", (2, 4, 8))
    monkeypatch.setattr(batch_sizes, "MIDDLE", 4)
    monkeypatch.setattr(batch_sizes, "SLICES", 8)
    monkeypatch.setattr(batch_sizes, "TABLE", tmp_path / "table.csv")
    monkeypatch.setattr(batch_sizes, "LEDGERS", tmp_path / "ledgers.json")
    yield batch_sizes
    for name in ("batch_sizes", "phantom_ablation", "real_patients"):
        sys.modules.pop(name, None)


def test_each_budget_holds_what_it_says_and_a_second_call_trains_nothing(batch_sizes, tmp_path, monkeypatch):
    assert batch_sizes.main(["--seeds", "3", "--work", str(tmp_path), "--record"]) == 0

    table = pd.read_csv(batch_sizes.TABLE).set_index(["budget", "rate", "batch_size"]).sort_index()
    assert len(table) == len(batch_sizes.WAYS) * 3
    for budget, rate in batch_sizes.WAYS:
        assert table.loc[(budget, rate), budget].nunique() == 1
    assert table.loc[("samples", "fixed"), "updates"].tolist() == [4, 2, 1]
    assert table.loc[("updates", "scaled"), "samples"].tolist() == [4, 8, 16]
    ledgers = json.loads(batch_sizes.LEDGERS.read_text())
    assert set(table["run"]) == set(ledgers)
    assert len(ledgers) == 12  # of 15: the middle size is the same run in four ways
    assert str(tmp_path) not in batch_sizes.LEDGERS.read_text()

    rates = {
        (*way, size): ledgers[table.loc[(*way, size), "run"]]["config"]["learning_rate"] for *way, size in table.index
    }
    assert [rates["updates", "scaled", size] for size in (2, 4, 8)] == pytest.approx([5e-4, 1e-3, 2e-3])
    assert {rates["samples", "paper", size] for size in (2, 4, 8)} == {1e-4}
    monkeypatch.setattr("emcad_lib.train.engine.train_one_epoch", None)
    assert batch_sizes.main(["--seeds", "3", "--work", str(tmp_path)]) == 0


def test_the_slices_of_an_epoch_make_whole_batches_of_every_size():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import batch_sizes
    finally:
        sys.path.pop(0)
    for size in batch_sizes.BATCH_SIZES:
        assert batch_sizes.SLICES % size == 0
        assert batch_sizes.SLICES * size % batch_sizes.MIDDLE == 0
