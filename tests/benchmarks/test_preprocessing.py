"""What preparing costs: the baseline's files hold a patient, and the table adds up."""

import sys

import numpy as np
import pandas as pd
import pytest

from emcad_lib.data.brats import find_patient, read_scan


@pytest.fixture
def preprocessing(script):
    return script("preprocessing")


def test_the_baseline_keeps_a_float64_file_of_every_slice(preprocessing, tiny_patients, tmp_path):
    patient = find_patient(tiny_patients(tmp_path / "patients", patients=1)[0])
    scan = read_scan(patient)

    (tmp_path / "npz").mkdir()
    preprocessing.write_npz(patient, tmp_path / "npz", np.savez)

    assert len(list((tmp_path / "npz").iterdir())) == scan.images.shape[-1]
    with np.load(tmp_path / "npz" / f"{patient.name}_12.npz") as file:
        image, mask = file["image"], file["mask"]
    assert image.shape == (*scan.images.shape[1:3], 4)
    assert image.dtype == np.float64
    np.testing.assert_array_equal(image[..., 2] != 0, scan.images[2, ..., 12] != 0)
    np.testing.assert_array_equal(mask, scan.regions[..., 12] & 1)


def test_the_table_is_per_patient_and_names_the_largest_process(preprocessing, tiny_patients, tmp_path, monkeypatch):
    sizing = sys.modules["sizing"]

    def prepare(_, cache_dir, limit):
        took = sizing.Watched(seconds=10 * limit, core_seconds=3.0 * limit, peak_bytes=5 * 10**8)
        return sizing.Preparation(limit, 0, limit * 15 * 10**6, 0, 0, took)

    monkeypatch.setattr(preprocessing, "prepare", prepare)
    tiny_patients(tmp_path / "patients", patients=2)
    out = tmp_path / "table.csv"

    assert preprocessing.main([str(tmp_path / "patients"), "--counts", "1", "2", "--out", str(out)]) == 0

    table = pd.read_csv(out)
    assert table["way"].tolist() == ["npz", "npz (compressed)", "cache", "cache"]
    alone, both = table.iloc[2], table.iloc[3]
    assert (alone["processor seconds per patient"], both["processor seconds per patient"]) == (3, 3)
    assert alone["seconds per patient and core"] == 10
    assert both["seconds per patient and core"] == 10 * min(sizing.CORES, 2)
    assert both["MB per patient"] == 15
    assert both["largest process, MB"] == 500
    assert table["MB per patient"][0] == pytest.approx(48 * 48 * 24 * 33 / 1e6, rel=0.05)


def test_too_few_patients_are_refused_in_a_sentence(preprocessing, tiny_patients, tmp_path, capsys):
    tiny_patients(tmp_path, patients=1)

    assert preprocessing.main([str(tmp_path), "--counts", "8"]) == 1
    assert "8 patients are needed, and 1 are here" in capsys.readouterr().err
