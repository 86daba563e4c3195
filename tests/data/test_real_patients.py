"""Reading and writing the real patients that EMCAD_BRATS_DIR names: the ten that the course was checked on."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from emcad_lib.data.brats import find_patients, read_scan, write_segmentation
from emcad_lib.data.labels import BRATS_2020, BRATS_2023, region_mask

pytestmark = pytest.mark.real

# Voxels (mm3) of whole tumour, core and enhancing tumour, counted in the segmentations' own labels.
VOLUMES = {
    "BraTS-GLI-00000-000": (57305, 44469, 32731),
    "BraTS2021_00006": (137911, 51954, 26448),
    "BraTS2021_01480": (34700, 10557, 0),
    "BraTS20_Training_001": (211979, 43185, 27742),
    "Brats18_2013_20_1": (217380, 107445, 43379),
    "Brats18_CBICA_APR_1": (73437, 36909, 17433),
    "Brats18_CBICA_ARZ_1": (19150, 1814, 1412),
    "Brats18_CBICA_ASE_1": (36342, 1520, 1357),
    "Brats18_TCIA02_135_1": (81847, 37146, 33532),
    "Brats18_TCIA10_628_1": (157275, 105558, 1976),
}


def test_all_ten_are_found_with_their_segmentations_and_years(brats_dir):
    patients, problems = find_patients(brats_dir, need_segmentation=True)

    assert problems == []
    assert [patient.name for patient in patients] == sorted(VOLUMES)
    assert [patient.name for patient in patients if patient.convention == BRATS_2023] == ["BraTS-GLI-00000-000"]
    assert sum(patient.convention == BRATS_2020 for patient in patients) == 9


@pytest.mark.parametrize("name", VOLUMES)
def test_a_real_patient_is_read_in_lps_and_its_segmentation_comes_back_voxel_for_voxel(brats_dir, tmp_path, name):
    (patient,) = [patient for patient in find_patients(brats_dir)[0] if patient.name == name]
    own = nib.load(patient.segmentation)

    scan = read_scan(patient)

    assert scan.images.shape == (4, 240, 240, 155)
    assert scan.spacing == (1, 1, 1)
    np.testing.assert_array_equal(scan.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    # Counted in the file's labels, and not by the code under test: 2 is oedema in both years, 1 is necrosis.
    labels = own.get_fdata()
    assert (np.count_nonzero(labels), np.isin(labels, (1, 3, 4)).sum(), np.isin(labels, (3, 4)).sum()) == VOLUMES[name]
    assert (
        tuple(int(region_mask(scan.regions, region).sum()) for region in ("whole", "core", "enhancing"))
        == VOLUMES[name]
    )
    # Skull-stripped: only brain is left, 13.5% to 18.3% of the grid in these ten.
    assert 0.13 < (scan.images[1] != 0).mean() < 0.19

    write_segmentation(tmp_path / "seg.nii.gz", scan.regions, scan, patient.convention)
    written = nib.load(tmp_path / "seg.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), labels)
    np.testing.assert_array_equal(written.affine, own.affine)
    assert written.get_data_dtype() == np.uint8
