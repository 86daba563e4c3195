"""The quantities that phantoms and patients are compared by, on volumes that can be counted by hand."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emcad_lib.data.population import POPULATION, measure, percentiles, side_by_side

ROOT = Path(__file__).parents[2]
EDGE = 20  # of the brain, a cube


@pytest.fixture
def patient():
    """Images and labels (24, 24, 24): a brain of 20 x 20 x 20, grey 100 or 120 along columns, and a tumour in it."""
    brain = np.zeros((24, 24, 24), dtype=bool)
    brain[2:22, 2:22, 2:22] = True
    columns = np.random.default_rng(0).integers(0, 2, (24, 24, 1)) * 20 + 100
    labels = np.zeros(brain.shape, dtype=np.uint8)
    labels[4:14, 4:14, 4:10] = 2  # 600 voxels of oedema at first, in 6 slices
    labels[4:14, 4:14, 4:6] = 1  # of which 200 become necrosis
    labels[4:14, 4:14, 6:7] = 4  # and 100 enhancing
    labels[18:20, 18:20, 18:20] = 2  # and a speck of 8 voxels in two slices more
    image = np.where(labels == 0, columns, np.array([0, 60, 200, 0, 300])[labels]) * brain
    return {"flair": image, "t1": image}, labels


def test_volumes_shares_slices_and_pieces_are_counted(patient):
    found = measure(*patient)

    assert found["brain"] == EDGE**3 / 1000
    assert found["wt"] == 0.608
    assert found["core"] == pytest.approx(300 / 608)
    assert found["et"] == pytest.approx(100 / 608)
    assert found["ncr"] == pytest.approx(200 / 608)
    assert found["share"] == 8 / 20
    assert found["bs"] == 20
    assert found["comp"] == 1  # the speck is too small to count


def test_brightness_is_in_standard_deviations_of_the_brain(patient):
    images, labels = patient
    values = images["flair"][images["flair"] > 0]
    mean, deviation = values.mean(), values.std()

    found = measure(images, labels)

    for part, grey in (("ed", 200), ("ncr", 60), ("et", 300), ("p1", 100), ("p99", 120)):
        assert found[f"flair_{part}"] == pytest.approx((grey - mean) / deviation, abs=1e-4), part


def test_columns_of_one_grey_are_alike_along_the_third_axis_and_not_along_the_first(patient):
    found = measure(*patient)

    assert found["t1_ac2"] == pytest.approx(1)
    assert abs(found["t1_ac0"]) < 0.15


def test_a_part_that_is_missing_has_no_brightness(patient):
    images, labels = patient
    found = measure(images, np.where(labels == 4, 2, labels))

    assert np.isnan(found["flair_et"])
    assert found["et"] == 0
    assert not np.isnan(found["flair_ed"])


def test_what_is_measured_is_what_is_known_of_real_patients(patient):
    images, labels = patient
    found = measure({name: images["flair"] for name in ("flair", "t1", "t1ce", "t2")}, labels)

    assert list(pd.read_csv(POPULATION)["quantity"]) == list(found)


def test_percentiles_are_over_patients_and_leave_missing_parts_out():
    table = percentiles([{"wt": value, "et": np.nan if value else 7.0} for value in range(101)])

    assert table.loc["wt"].tolist() == [10, 25, 50, 75, 90]
    assert table.loc["et"].tolist() == [7] * 5
    assert list(table.columns) == list(pd.read_csv(POPULATION, index_col="quantity").columns)


def test_a_median_fits_inside_the_real_middle_half_and_a_spread_is_a_ratio():
    names = ["p10", "p25", "p50", "p75", "p90"]
    real = pd.DataFrame([[0, 2, 5, 8, 10]] * 2, index=["inside", "outside"], columns=names)
    made = pd.DataFrame([[1, 2, 3, 4, 6], [1, 5, 9, 10, 21]], index=["inside", "outside"], columns=names)

    table = side_by_side(made, real)

    assert table["median fits"].tolist() == [True, False]
    assert table["spread"].tolist() == [0.5, 2.0]


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare_phantom", ROOT / "data_scripts" / "compare_phantom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_prints_every_quantity_side_by_side(compare, phantoms, capsys):
    assert compare.main([str(phantoms)]) == 0

    out = capsys.readouterr().out
    quantities = list(pd.read_csv(POPULATION)["quantity"])
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()[:1]}
    assert set(quantities) <= set(rows)
    assert float(rows["wt"][4]) == pytest.approx(33.91)  # the real p10, behind the phantoms' three numbers
    assert f"{len(quantities)} quantities: " in out


def test_the_command_says_where_there_are_no_phantoms(compare, tmp_path, capsys):
    assert compare.main([str(tmp_path)]) == 1
    assert "no phantom patients here. Give the folder that data_scripts/make_phantom.py" in capsys.readouterr().err


def test_the_command_writes_the_table_as_well(compare, phantoms, tmp_path):
    assert compare.main([str(phantoms), "--out", str(tmp_path / "table.csv")]) == 0

    table = pd.read_csv(tmp_path / "table.csv", index_col="quantity")
    assert table.loc["wt", "real p50"] == pytest.approx(96.42)
    assert {"phantom p50", "median fits", "spread"} <= set(table.columns)


def test_a_place_where_no_table_can_be_is_named(compare, phantoms, tmp_path, capsys):
    (tmp_path / "a file").write_text("mine")

    assert compare.main([str(phantoms), "--out", str(tmp_path / "a file" / "table.csv")]) == 1

    said = capsys.readouterr().err
    assert f"{tmp_path / 'a file'} is a file and no folder. Give --out another place." in said
    assert "Measuring" not in said


def test_a_folder_is_never_replaced_by_the_table(compare, phantoms, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").write_text("mine")

    assert compare.main([str(phantoms), "--out", str(tmp_path / "folder")]) == 1

    assert f"{tmp_path / 'folder'}: this is a folder. Give --out the name of a file" in capsys.readouterr().err
    assert (tmp_path / "folder" / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("harm", ["cut short", "no gzip", "missing"])
def test_a_file_that_cannot_be_read_is_named(harm, compare, phantoms, tmp_path, capsys):
    folder = tmp_path / "phantoms"
    shutil.copytree(phantoms, folder)
    file = folder / "Phantom_000" / "Phantom_000_t1.nii.gz"
    whole = file.read_bytes()
    file.unlink()
    if harm != "missing":
        file.write_bytes(whole[: len(whole) // 2] if harm == "cut short" else b"no gzip at all")

    assert compare.main([str(folder)]) == 1

    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{file}: this file of Phantom_000 can't be read" in said
    assert "make_phantom.py" in said


@pytest.mark.parametrize("table", ["", "quantity,p10\nwt,1\n", "a,b\n1,2\n", None])
def test_a_table_that_is_no_population_is_refused_before_the_work(table, compare, phantoms, tmp_path, capsys):
    path = tmp_path / "mine.csv"
    if table is not None:
        path.write_text(table)

    assert compare.main([str(phantoms), "--population", str(path)]) == 1

    said = capsys.readouterr().err
    assert f"{path}: this is no table with the columns" in said
    assert "Give --population one that has them" in said
    assert len(said.splitlines()) == 1
