"""Finding, reading and writing patients."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from emcad_lib.data.brats import find_patients, read_scan, write_segmentation
from emcad_lib.data.labels import BRATS_2020, BRATS_2023, DECATHLON


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("naming", "convention"),
    [("2018", BRATS_2020), ("2020", BRATS_2020), ("2021", BRATS_2020), ("kaggle", BRATS_2020),
     ("2023", BRATS_2023), ("decathlon", DECATHLON)],
)  # fmt: skip
def test_every_naming_gives_the_same_arrays_and_its_own_segmentation_back(
    tmp_path, tiny_patients, naming, convention, suffix
):
    tiny_patients(tmp_path / "other", 1)
    tiny_patients(tmp_path / "data", 3, naming, suffix)
    (reference,), _ = find_patients(tmp_path / "other")
    expected = read_scan(reference)

    patients, problems = find_patients(tmp_path / "data", need_segmentation=True)

    assert problems == []
    assert len(patients) == 3
    scan = read_scan(patients[0])
    assert patients[0].convention == convention
    np.testing.assert_array_equal(scan.images, expected.images)
    np.testing.assert_array_equal(scan.regions, expected.regions)
    write_segmentation(tmp_path / "out.nii.gz", scan.regions, scan, convention)
    written, own = nib.load(tmp_path / "out.nii.gz"), nib.load(patients[0].segmentation)
    np.testing.assert_array_equal(written.get_fdata(), own.get_fdata())
    np.testing.assert_array_equal(written.affine, own.affine)
    assert written.get_data_dtype() == np.uint8
