"""Real patients, in each naming: the segmentation lies on their grid. Collected only where EMCAD_BRATS_DIR is set."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from emcad_lib import create_model, save_weights
from emcad_lib.evaluate.metrics import dice
from emcad_lib.lesson import RECORDED as RECORDED_TABLES
from emcad_lib.segment import main, segment_patient


@pytest.mark.parametrize("joint", ["_flair", "-t2f"])
def test_a_real_patient_is_segmented_on_the_grid_of_the_input(joint, brats_dir, tmp_path, capsys):
    flair = sorted(brats_dir.rglob(f"*{joint}.nii*"))[0]
    model = create_model()
    model.heads[-1].weight.data.zero_()
    model.heads[-1].bias.data.fill_(9.0)  # all brain is tumour
    metadata = {"modalities": json.dumps(["flair", "t1ce", "t2"]), "regions": json.dumps(["whole"]), "image_size": "64"}
    save_weights(model, tmp_path / "w.safetensors", **metadata)

    out = tmp_path / "seg.nii.gz"
    arguments = [str(flair.parent), "--out", str(out), "--weights", str(tmp_path / "w.safetensors"), "--no-refine"]
    assert main(arguments) == 0  # plainly: a part of the brain that stands alone would be dropped as a crumb

    given, written = nib.load(flair), nib.load(out)
    np.testing.assert_array_equal(written.affine, given.affine)
    labels = np.asarray(written.dataobj)
    assert labels.shape == given.shape
    assert np.unique(labels).tolist() == [0, 2]
    assert labels[np.asarray(given.dataobj) != 0].all()
    assert "Dice" in capsys.readouterr().out


RECORDED = pd.read_csv(RECORDED_TABLES / "reference_weights_real_patients.csv").set_index("patient")["dice"]


@pytest.mark.parametrize("name", ["BraTS2021_00006", "Brats18_TCIA02_135_1"])
def test_the_shipped_weights_score_what_is_recorded(brats_dir, tmp_path, name):
    found = [path for path in brats_dir.rglob(name) if path.is_dir()]
    if not found:
        pytest.skip(f"{name} isn't in {brats_dir}")

    segmented = segment_patient(found[0], tmp_path / "seg.nii.gz")

    truth = nib.load(next(found[0].glob("*seg.nii*"))).get_fdata() > 0
    score = dice(np.asarray(nib.load(segmented).dataobj) > 0, truth)
    assert score == pytest.approx(RECORDED[name], abs=0.01)


def test_the_recorded_mean_reaches_what_the_course_promises():
    assert len(RECORDED) == 10
    assert RECORDED.mean() >= 0.75
