"""The table of memory: its rows, and that the recorded one is what the library says today."""

import pandas as pd
import pytest


@pytest.fixture
def benchmark_script(script):
    return script("activation_memory")


def test_the_recorded_table_has_a_row_for_each_case_and_its_numbers_are_todays(benchmark_script):
    recorded = pd.read_csv(benchmark_script.TABLE)
    cases = ["encoder", "image_size", "mixed_precision", "batch_size"]
    assert len(recorded) == len(recorded[cases].drop_duplicates()) == 2 * 4 * 2 * 4

    today = benchmark_script.table(["pvt_v2_b0"], [96])
    same = recorded[(recorded["encoder"] == "pvt_v2_b0") & (recorded["image_size"] == 96)]
    assert today[cases].to_numpy().tolist() == same[cases].to_numpy().tolist()
    # Within what another release of PyTorch, or its choice of kernels on another processor, may change.
    assert today["activation_gb"].tolist() == pytest.approx(same["activation_gb"].tolist(), rel=0.02, abs=2e-4)


def test_the_recorded_sums_add_up_and_grow_in_a_straight_line_with_the_batch(benchmark_script):
    recorded = pd.read_csv(benchmark_script.TABLE)
    assert recorded["total_gb"].tolist() == pytest.approx(
        recorded[["activation_gb", "moment_gb", "constant_gb"]].sum(axis=1).tolist(), abs=2.1e-4
    )
    for _, case in recorded.groupby(["encoder", "image_size", "mixed_precision"]):
        by_batch = case.set_index("batch_size")["activation_gb"]
        slope = (by_batch[16] - by_batch[6]) / 10
        assert by_batch[25] == pytest.approx(by_batch[16] + 9 * slope, abs=1e-3)


def test_the_table_is_printed_and_written_where_it_is_recorded(benchmark_script, monkeypatch, tmp_path, capsys):
    small = benchmark_script.table(["pvt_v2_b0"], [32])
    monkeypatch.setattr(benchmark_script, "table", lambda: small)
    monkeypatch.setattr(benchmark_script, "TABLE", tmp_path / "memory.csv")

    assert benchmark_script.main([]) == 0
    assert not (tmp_path / "memory.csv").exists()
    assert benchmark_script.main(["--record"]) == 0
    assert len(pd.read_csv(tmp_path / "memory.csv")) == len(small) == 8
    assert "accumulate_on_16gb" in capsys.readouterr().out
