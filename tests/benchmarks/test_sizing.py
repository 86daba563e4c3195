"""What so much data takes: what is measured, what is calculated from it, and what was recorded."""

import sys
import time

import numpy as np
import pandas as pd
import pytest

from emcad_lib.data.split import split_patients


@pytest.fixture
def sizing(script):
    return script("sizing")


@pytest.fixture
def preparations(sizing):
    """8 and 32 patients of 20 MB, 10 MB prepared, 100 slices, and 1.5 core seconds after a start of 3."""
    return [
        sizing.Preparation(
            patients=count,
            raw_bytes=count * 20 * 10**6,
            cache_bytes=count * 10**7,
            slices=count * 100,
            train_slices=count * 70,
            took=sizing.Watched(seconds=2 * count, core_seconds=3 + 1.5 * count, peak_bytes=5 * 10**8),
        )
        for count in (8, 32)
    ]


@pytest.fixture
def trainings(sizing):
    return [sizing.Watched(100, 150, 10**9), sizing.Watched(100, 150, 1.1 * 10**9)]


def test_a_command_is_watched_with_its_children(sizing):
    child = "x = b'1' * 200_000_000; import time; t = time.process_time()\nwhile time.process_time() < t + 0.5: pass"
    began = time.perf_counter()
    took = sizing.watch(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    )
    assert 0.5 < took.seconds <= time.perf_counter() - began
    assert 0.3 < took.core_seconds < took.seconds
    assert 200e6 < took.peak_bytes < 260e6


def test_a_command_that_fails_says_why(sizing):
    with pytest.raises(SystemExit, match="no room"):
        sizing.watch([sys.executable, "-c", "raise SystemExit('no room')"])


def test_patients_are_prepared_and_trained_on_through_the_command_lines(sizing, tiny_patients, tmp_path):
    folders = tiny_patients(tmp_path / "patients", 4)
    done = sizing.prepare(tmp_path / "patients", tmp_path / "cache", limit=3)
    assert (done.patients, done.slices, done.train_slices) == (3, 66, 22)  # no brain in the lowest and highest slice
    assert done.raw_bytes == sum(file.stat().st_size for folder in folders[:3] for file in folder.iterdir())
    voxels = sum(np.load(path).size for path in (tmp_path / "cache").rglob("regions.npy"))
    # A byte for each modality and one for the regions; and headers, records and the manifest.
    assert 5 * voxels < done.cache_bytes < 5 * voxels + 20_000
    assert min(done.took.core_seconds, done.took.peak_bytes) > 0

    assert sizing.train(tmp_path / "cache", updates=2, batch_size=4, image_size=32).peak_bytes > 10**8
    assert 0 < sizing.loading_seconds(tmp_path / "cache", image_size=32, slices=32) < 1


def test_start_and_validation_fall_out_of_the_speed(sizing, monkeypatch):
    monkeypatch.setattr(sizing, "CORES", 2)
    few, many = sizing.Watched(99, 30 + 4 * 16 * 0.5, 0), sizing.Watched(99, 30 + 24 * 16 * 0.5, 0)
    assert sizing.slices_per_second(few, many) == pytest.approx(2 / 0.5)


def test_a_slice_costs_what_arithmetic_or_memory_costs_whichever_is_more_and_loading(sizing):
    card = sizing.Card(operations=2e12, bandwidth=3e11)
    arithmetic = 3 * 2 * 1e9 / 0.6e12
    traffic = 6 * 1e9 / 2.1e11
    assert sizing.seconds_per_slice(card, 1e9, 1e6, 0.001) == pytest.approx(arithmetic + 0.001)
    assert sizing.seconds_per_slice(card, 1e6, 1e9, 0.001) == pytest.approx(traffic + 0.001)
    eight = sizing.Card(2e12, 3e11, cards=8)  # each of which loads every slice
    assert sizing.seconds_per_slice(eight, 1e9, 1e6, 0.001) == pytest.approx(arithmetic / 8 + 0.001)


def test_the_costs_of_a_slice_are_those_of_the_network_at_224_pixels(sizing):
    multiply_adds, kept = sizing.slice_costs()
    assert multiply_adds == pytest.approx(0.63e9, rel=0.1)
    assert 30e6 < kept < 60e6


def test_measured_rows_say_how_much_grew(sizing, preparations, trainings, monkeypatch):
    monkeypatch.setattr(sizing, "CORES", 2)
    _, row = sizing.measured_rows(preparations, trainings, speed=7)
    assert row["preprocess_hours"] == pytest.approx((3 + 48) / 2 / 3600)
    assert row["epoch_hours_here"] == pytest.approx(32 * 70 / 7 / 3600)
    assert "patients 4.00, raw 4.00, cache 4.00, hours of preparing 3.40, memory of a worker 1.00" in row["notes"]
    assert "memory of the training 1.10; preparing took 64 s by the clock, with 40% of the machine" in row["notes"]


def test_calculated_rows_are_in_proportion_and_the_start_counts_once(sizing, preparations, trainings, monkeypatch):
    monkeypatch.setattr(sizing, "CORES", 2)
    rows = sizing.calculated_rows(preparations, None, trainings, 7, (1e9, 1e6), 0.001)
    row = rows[-1]
    assert [row["patients"] for row in rows] == [369, 1251, 10_000]
    assert (row["raw_gb"], row["cache_gb"]) == pytest.approx((200, 100))
    assert row["preprocess_hours"] == pytest.approx(10_000 * 0.75 / 3600)
    assert row["train_slices"] == 7000 * 100
    assert row["epoch_hours_here"] == pytest.approx(100_000 / 3600)
    assert row["train_gb"] == 1.1
    expected = 700_000 * sizing.seconds_per_slice(sizing.CARDS["t4"], 1e9, 1e6, 0.001) / 3600
    assert row["epoch_hours_t4"] == pytest.approx(expected)
    assert "GPUs by calculation, not measured" in row["notes"]


def test_real_patients_where_there_are_some_say_how_large_a_patient_is(sizing, preparations, trainings):
    real = sizing.Preparation(10, 10 * 9 * 10**6, 10 * 12 * 10**6, 1400, 980, sizing.Watched(9, 15, 6 * 10**8))
    row = sizing.calculated_rows(preparations, real, trainings, 7, (1e9, 1e6), 0.001)[-1]
    assert (row["raw_gb"], row["cache_gb"], row["train_slices"]) == (90, 120, 7000 * 140)
    assert row["preprocess_gb_per_worker"] == 0.6
    assert "10 real patients (140.0 slices each)" in row["notes"]


def test_the_recorded_growth_is_in_proportion_to_the_patients_and_memory_does_not_grow(sizing):
    recorded = pd.read_csv(sizing.TABLE)
    measured = recorded[recorded["how"] == "measured"].set_index("patients")
    assert list(measured.index) == list(sizing.COUNTS)
    for column in ("raw_gb", "cache_gb"):
        assert measured.loc[128, column] / measured.loc[8, column] == pytest.approx(16, rel=0.1)
    for column in ("preprocess_gb_per_worker", "train_gb"):
        assert measured.loc[128, column] / measured.loc[8, column] < 1.25


def test_the_recorded_rows_are_those_of_the_data_sets_with_the_splits_share(sizing):
    recorded = pd.read_csv(sizing.TABLE)
    calculated = recorded[recorded["how"] == "calculated"].set_index("data")
    assert calculated["patients"].to_dict() == sizing.DATASETS
    shares = {}
    for name, patients in sizing.DATASETS.items():
        split = split_patients(map(str, range(patients)))
        shares[name] = sum(part == "train" for part in split.values())
    per_patient = calculated["train_slices"] / pd.Series(shares)
    assert per_patient.max() - per_patient.min() < 0.1
    assert 130 < per_patient.mean() < 150
    assert (calculated["epoch_hours_8_a100"] < calculated["epoch_hours_t4"]).all()
