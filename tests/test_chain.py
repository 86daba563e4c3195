"""The whole way of a patient: phantom, cache, two epochs of training, segmentation."""

import nibabel as nib
import numpy as np

from emcad_lib.data.slices import Cache
from emcad_lib.segment import segment_patient
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train


def test_from_phantom_patients_to_a_segmentation_with_a_loss_that_falls(phantoms, phantom_cache, tmp_path):
    config = TrainConfig(
        cache=phantom_cache, runs=tmp_path / "runs", name="chain", batch_size=8, epochs=2, slices_per_epoch=160,
        image_size=64,
    )  # fmt: skip
    patient = phantoms / Cache(phantom_cache).names("test")[0]

    ledger = train(config, show=False)
    out = segment_patient(patient, tmp_path / "seg.nii.gz", weights=ledger.folder / "best.safetensors")

    losses = ledger.history["train_loss"]
    assert losses.iloc[1] < 0.9 * losses.iloc[0]
    given, made = nib.load(patient / f"{patient.name}_flair.nii.gz"), nib.load(out)
    assert made.shape == given.shape
    np.testing.assert_array_equal(made.affine, given.affine)
    assert set(np.unique(made.dataobj)) <= {0, 1, 2, 4}
