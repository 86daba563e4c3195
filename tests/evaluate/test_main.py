"""The command that measures many patients: every label convention, going on, and what can be wrong."""

import json
import shutil

import pandas as pd
import pytest
import torch

from emcad_lib import create_model, save_weights
from emcad_lib.data.brats import find_patients, read_scan, write_segmentation
from emcad_lib.evaluate import __main__ as module
from emcad_lib.evaluate.__main__ import COLUMNS, main
from emcad_lib.segment import segment_patient


@pytest.fixture
def weights(tmp_path):
    """A network of three regions that marks all of the brain as whole tumour, and none of it as the others."""
    torch.manual_seed(0)
    model = create_model(num_classes=3)
    torch.nn.init.zeros_(model.heads[-1].weight)
    model.heads[-1].bias.data = torch.tensor([9.0, -9.0, -9.0])
    known = {"modalities": ["flair", "t1ce", "t2"], "image_size": 32, "regions": ["whole", "core", "enhancing"]}
    save_weights(model, tmp_path / "w.safetensors", **{key: json.dumps(value) for key, value in known.items()})
    return tmp_path / "w.safetensors"


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("naming", ["2018", "2021", "2023", "kaggle", "decathlon"])
def test_in_every_convention_the_same_patients_measure_the_same(naming, tiny_patients, tmp_path, weights):
    tiny_patients(tmp_path / "patients", patients=2, naming=naming)
    tiny_patients(tmp_path / "2020", patients=2)

    assert run(tmp_path / "patients", "--out", tmp_path / "t.csv", "--weights", weights) == 0
    assert run(tmp_path / "2020", "--out", tmp_path / "2020.csv", "--weights", weights) == 0

    table, same = pd.read_csv(tmp_path / "t.csv"), pd.read_csv(tmp_path / "2020.csv")
    assert table["region"].tolist() == ["whole", "core", "enhancing"] * 2
    pd.testing.assert_frame_equal(table.drop(columns="patient"), same.drop(columns="patient"))
    whole = table.iloc[0]
    assert 0 < whole["dice"] < 0.5 < whole["sensitivity"] == 1
    assert table.iloc[1]["dice"] == 0


@pytest.mark.parametrize("naming", ["2020", "2023", "decathlon"])
def test_the_true_segmentations_as_predictions_are_perfect_in_every_convention(naming, tiny_patients, tmp_path):
    tiny_patients(tmp_path / "patients", patients=2, naming=naming)
    patients, _ = find_patients(tmp_path / "patients", need_segmentation=True)
    for patient, ending in zip(patients, (".nii.gz", "_seg.nii"), strict=True):
        scan = read_scan(patient)
        (tmp_path / "found").mkdir(exist_ok=True)
        write_segmentation(tmp_path / "found" / f"{patient.name}{ending}", scan.regions, scan, patient.convention)

    assert run(tmp_path / "patients", "--out", tmp_path / "t.csv", "--predictions", tmp_path / "found") == 0

    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 6
    assert (table[["dice", "sensitivity", "specificity"]] == 1).all(axis=None)
    assert (table[["hd95_mm", "error_cm3"]] == 0).all(axis=None)


@pytest.mark.parametrize("bits", [1, 3], ids=["whole", "core, too"])
def test_whoever_brings_segmentations_of_the_whole_tumour_only_is_told_which_rows_count(
    bits, tiny_patients, tmp_path, capsys
):
    tiny_patients(tmp_path / "patients", patients=1)
    ((patient,), _) = find_patients(tmp_path / "patients", need_segmentation=True)
    scan = read_scan(patient)
    (tmp_path / "found").mkdir()
    write_segmentation(tmp_path / "found" / f"{patient.name}.nii.gz", scan.regions & bits, scan, patient.convention)

    assert run(tmp_path / "patients", "--out", tmp_path / "t.csv", "--predictions", tmp_path / "found") == 0

    assert ("If they know the whole tumour only" in capsys.readouterr().out) == (bits == 1)


def test_what_segment_has_written_measures_as_the_network_itself(tiny_patients, tmp_path, weights):
    (folder,) = tiny_patients(tmp_path / "patients", patients=1)
    (tmp_path / "found").mkdir()
    segment_patient(folder, tmp_path / "found" / f"{folder.name}.nii.gz", weights)

    run(tmp_path / "patients", "--out", tmp_path / "files.csv", "--predictions", tmp_path / "found")
    run(tmp_path / "patients", "--out", tmp_path / "network.csv", "--weights", weights)

    files, network = (pd.read_csv(tmp_path / name).drop(columns="by") for name in ("files.csv", "network.csv"))
    pd.testing.assert_frame_equal(files, network)


def test_a_call_that_was_interrupted_goes_on_and_other_settings_are_refused(
    tiny_patients, tmp_path, weights, monkeypatch, capsys
):
    tiny_patients(tmp_path / "patients", patients=3)
    line = (tmp_path / "patients", "--out", tmp_path / "t.csv", "--weights", weights)
    calls, segment = [], module.segment_scan

    def once(model, scan, **settings):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(scan)
        return segment(model, scan, **settings)

    monkeypatch.setattr(module, "segment_scan", once)
    with pytest.raises(KeyboardInterrupt):
        run(*line)
    assert len(pd.read_csv(tmp_path / "t.csv")) == 2 * 3

    calls.clear()
    assert run(*line) == 0
    assert len(calls) == 1
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 3 * 3
    assert table.columns.tolist() == COLUMNS

    before = (tmp_path / "t.csv").read_bytes()
    assert run(*line, "--no-refine") == 1
    assert "Give --out another name" in capsys.readouterr().err
    assert run(*line, "--limit", "1") == 0  # the rows of the others stay
    assert "Patients: 1." in capsys.readouterr().out
    assert (tmp_path / "t.csv").read_bytes() == before


def test_a_prediction_that_has_changed_is_not_taken_for_the_one_that_was_measured(
    tiny_patients, tmp_path, weights, capsys
):
    (folder,) = tiny_patients(tmp_path / "patients", patients=1)
    (tmp_path / "found").mkdir()
    file = tmp_path / "found" / f"{folder.name}.nii.gz"
    line = (tmp_path / "patients", "--out", tmp_path / "t.csv", "--predictions", tmp_path / "found")
    segment_patient(folder, file, weights)
    assert run(*line) == 0
    assert run(*line) == 0
    shutil.copy(next(folder.glob("*_seg.nii.gz")), file)

    assert run(*line) == 1
    assert f"patient {folder.name} was measured with other" in capsys.readouterr().err
    assert run(*line[:2], tmp_path / "new.csv", *line[3:]) == 0
    assert (pd.read_csv(tmp_path / "new.csv")["dice"] == 1).all()


def test_a_patient_with_a_fault_is_named_and_the_others_are_measured(tiny_patients, tmp_path, weights, capsys):
    first, second = tiny_patients(tmp_path / "patients", patients=2)
    next(first.glob("*t1ce*")).write_bytes(b"")

    assert run(tmp_path / "patients", "--out", tmp_path / "t.csv", "--weights", weights) == 0

    said = capsys.readouterr()
    assert f"Left out: Patient {first.name}" in said.err
    assert set(pd.read_csv(tmp_path / "t.csv")["patient"]) == {second.name}
    assert "Patients: 1." in said.out


def test_a_missing_prediction_is_named_with_the_name_it_should_have(tiny_patients, tmp_path, capsys):
    (folder,) = tiny_patients(tmp_path / "patients", patients=1)
    (tmp_path / "found").mkdir()

    assert run(tmp_path / "patients", "--out", tmp_path / "t.csv", "--predictions", tmp_path / "found") == 1

    said = capsys.readouterr().err
    assert f"{folder.name}.nii.gz: this prediction is missing. Put it into the folder {tmp_path / 'found'}," in said
    assert f"{tmp_path / 'patients'}: no patient could be measured. Mend what is named above." in said


def test_a_table_of_somebody_elses_is_not_overwritten(tiny_patients, tmp_path, weights, capsys):
    tiny_patients(tmp_path / "patients", patients=1)
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")

    assert run(tmp_path / "patients", "--out", tmp_path / "mine.csv", "--weights", weights) == 1

    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"
    assert "another table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--out a_file/t.csv", "a_file/t.csv: a_file is a file and no folder. Give --out another place."),
        ("--out found", "found: this is a folder. Give --out the name of a file in it."),
        ("--out t.csv --predictions gone", "gone: there is no such folder. Give --predictions the folder"),
        ("--out t.csv --predictions a_file", "a_file: this is a file, not a folder. Give --predictions the folder"),
        ("--out t.csv --weights found", "found: this is a folder. Give a file"),
        ("--out t.csv --limit -1", "--limit must be 0, for all patients, or more, not -1."),
    ],
)
def test_a_slip_is_named_with_what_to_do_before_the_work(options, says, tiny_patients, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_patients(tmp_path / "patients", patients=1)
    (tmp_path / "a_file").write_text("precious")
    (tmp_path / "found").mkdir()

    assert run("patients", *options.split()) == 1

    assert says in capsys.readouterr().err
    assert (tmp_path / "a_file").read_text() == "precious"
    assert not (tmp_path / "t.csv").exists()


def test_only_the_first_few_patients_can_be_asked_for(tiny_patients, tmp_path, weights):
    tiny_patients(tmp_path / "patients", patients=3)

    assert run(tmp_path / "patients", "--out", tmp_path / "t.csv", "--weights", weights, "--limit", "2") == 0

    assert pd.read_csv(tmp_path / "t.csv")["patient"].nunique() == 2
