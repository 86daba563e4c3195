"""Reading a patient's arrays, writing a segmentation, and every way in which a file can be wrong."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import orientations

from emcad_lib.data.brats import MODALITIES, PatientError, find_patient, read_scan, write_segmentation
from emcad_lib.data.labels import BRATS_2020
from emcad_lib.files import CourseError

NAME = "BraTS20_Training_001"


@pytest.fixture
def folder(tmp_path, tiny_patients) -> Path:
    """One tiny BraTS 2020 patient, to be damaged."""
    return tiny_patients(tmp_path, 1)[0]


def rewrite(path: Path, array=None, affine=None) -> None:
    """Replace a NIfTI file's array or affine."""
    image = nib.load(path)
    array = np.asanyarray(image.dataobj) if array is None else array
    nib.Nifti1Image(array, image.affine if affine is None else affine).to_filename(path)


def with_value(path: Path, value: float, dtype=np.float32) -> None:
    array = nib.load(path).get_fdata().astype(dtype)
    array[20, 20, 10] = value
    rewrite(path, array)


def flatten(path: Path) -> None:
    """Write an affine whose third axis has no length. nibabel's own setters would refuse it."""
    image = nib.load(path)
    image.header["srow_z"] = 0
    nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header).to_filename(path)


FAULTS = {
    "no such file": (lambda path: path.unlink(), "there is no such file"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "truncated or damaged"),
    "last byte lost": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated or damaged"),
    "only the gzip header": (lambda path: path.write_bytes(path.read_bytes()[:8]), "truncated or damaged"),
    "text": (lambda path: path.write_text("<html>404 Not Found</html>\n" * 40), "not a NIfTI image"),
    "short text": (lambda path: path.write_text("oops"), "not a NIfTI image"),
    "compressed text": (lambda path: path.write_bytes(gzip.compress(b"oops " * 400)), "not a NIfTI image"),
    "shape": (
        lambda path: rewrite(path, np.ones((48, 48, 23), np.int16)),
        r"shape \(48, 48, 23\) differs from the \(48, 48, 24\)",
    ),
    "4D": (lambda path: rewrite(path, np.ones((48, 48, 24, 2), np.int16)), "4 dimensions .* where 3 are expected"),
    "2D": (lambda path: rewrite(path, np.ones((48, 48), np.int16)), "2 dimensions .* where 3 are expected"),
    "no voxels": (lambda path: rewrite(path, np.ones((48, 48, 0), np.int16)), "not a NIfTI image|no grey values"),
    "orientation": (lambda path: rewrite(path, affine=np.eye(4)), "orientation RAS differs from the LPS"),
    "no orientation": (flatten, "gives no orientation"),
    "colours": (
        lambda path: rewrite(path, np.zeros((48, 48, 24), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "no grey values",
    ),
    "complex": (lambda path: rewrite(path, np.ones((48, 48, 24), np.complex64)), "no grey values"),
}  # fmt: skip

IMAGE_FAULTS = {
    "NaN": (lambda path: with_value(path, np.nan), "t1 image holds NaN or infinity in 1 voxels"),
    "infinity": (lambda path: with_value(path, -np.inf), "t1 image holds NaN or infinity in 1 voxels"),
    "too large": (lambda path: with_value(path, 1e300, np.float64), "t1 image holds NaN or infinity in 1 voxels"),
    "all zero": (lambda path: rewrite(path, np.zeros((48, 48, 24), np.int16)), "t1 image is zero everywhere"),
    "origin": (lambda path: rewrite(path, affine=np.diag([-1.0, -1, 1, 1])), "origin or voxel size differs"),
    "voxel size": (
        lambda path: rewrite(path, affine=np.array([[-2.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])),
        "origin or voxel size differs",
    ),
}  # fmt: skip

LABEL_FAULTS = {
    "label 3": (
        lambda path: with_value(path, 3, np.uint8),
        "found 3, but the labels of BraTS 2018 to 2021 are 0, 1, 2, 4",
    ),
    "half a label": (lambda path: with_value(path, 0.5), "found 0.5, but"),
    "NaN": (lambda path: with_value(path, np.nan), "found nan, but"),
}


@pytest.mark.parametrize(
    ("role", "damage", "problem"),
    [
        *[pytest.param("t1", *fault, id=f"t1: {name}") for name, fault in (FAULTS | IMAGE_FAULTS).items()],
        *[pytest.param("seg", *fault, id=f"seg: {name}") for name, fault in (FAULTS | LABEL_FAULTS).items()],
    ],
)
@pytest.mark.filterwarnings("error")
def test_each_fault_has_one_message_that_names_patient_and_file(folder, role, damage, problem):
    path = folder / f"{NAME}_{role}.nii.gz"
    patient = find_patient(folder)
    damage(path)

    with pytest.raises(PatientError, match=problem) as caught:
        read_scan(patient)

    assert (caught.value.patient, caught.value.file) == (NAME, path)
    message = str(caught.value)
    assert message.startswith(f"Patient {NAME}, {path.name}: ")
    assert "\n" not in message
    assert caught.value.remedy in message
    assert len(caught.value.remedy) > 10


def test_a_truncated_file_without_compression_says_how_much_is_there(tmp_path, tiny_patients):
    (folder,) = tiny_patients(tmp_path, 1, suffix=".nii")
    path = folder / f"{NAME}_t2.nii"
    path.write_bytes(path.read_bytes()[:50000])

    # 352 bytes of header and 48 x 48 x 24 voxels of two bytes: 110944
    with pytest.raises(PatientError, match="truncated: 50000 bytes of 110944 are there"):
        read_scan(find_patient(folder))


def test_no_permission_is_said_as_such(folder, monkeypatch):
    patient = find_patient(folder)
    read_bytes = Path.read_bytes

    def forbidding(path):
        if path.name.endswith("_t2.nii.gz"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", forbidding)

    with pytest.raises(PatientError, match=r"_t2\.nii\.gz: it can't be read \(Permission denied\)\. Check the perm"):
        read_scan(patient)


@pytest.mark.parametrize("compressed", [False, True])
def test_no_damage_whatever_brings_anything_but_a_patient_error(tmp_path, tiny_patients, compressed):
    (folder,) = tiny_patients(tmp_path, 1, suffix=".nii")
    patient = find_patient(folder)
    path = patient.images["flair"]
    whole = gzip.compress(path.read_bytes()) if compressed else path.read_bytes()
    reach = len(whole) if compressed else 352  # of an uncompressed file, only the header can break anything
    random = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}

    for _ in range(250):
        damaged = bytearray(whole)
        for position in random.integers(0, reach, size=3):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged[: random.integers(len(damaged))] if random.random() < 0.2 else damaged)
        try:
            read_scan(patient)
            outcomes["read"] += 1
        except PatientError:
            outcomes["refused"] += 1

    assert outcomes["refused"] >= 100
    if compressed:  # whatever three random bytes did, the checksum noticed it
        assert outcomes["read"] <= 5


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((48, 48, 24), "3 dimensions .* where 4 are expected. Put a 4D file in its place"),
        ((48, 48, 24, 3), "3 volumes where 4 are expected. Put a 4D file .* in its place"),
    ],
)
def test_a_decathlon_file_must_hold_four_volumes(tmp_path, tiny_patients, shape, problem):
    (path,) = tiny_patients(tmp_path, 1, "decathlon")
    rewrite(path, np.ones(shape, np.int16))

    with pytest.raises(PatientError, match=problem):
        read_scan(find_patient(path))


def test_a_fault_in_one_volume_of_a_decathlon_file_names_the_modality(tmp_path, tiny_patients):
    (path,) = tiny_patients(tmp_path, 1, "decathlon")
    array = nib.load(path).get_fdata(dtype=np.float32)
    array[..., 2] = 0  # the order is FLAIR, T1w, T1gd, T2w
    rewrite(path, array)

    with pytest.raises(PatientError, match="the t1ce image is zero everywhere"):
        read_scan(find_patient(path))


# Each file below holds the same head, with 1 x 2 x 3 mm voxels along left, posterior and superior.
@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "RPI", "SPL", "PIR", "ASR"])
@pytest.mark.parametrize("naming", ["2020", "decathlon"])
def test_arrays_are_lps_whatever_the_files_orientation_and_the_segmentation_goes_back_to_it(
    tmp_path, tiny_patients, codes, naming
):
    (folder,) = tiny_patients(tmp_path, 1, naming)
    expected = read_scan(find_patient(folder))
    affine = np.array([[-1.0, 0, 0, 30], [0, -2.0, 0, 40], [0, 0, 3.0, -50], [0, 0, 0, 1]])
    turn = orientations.ornt_transform(orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt(codes))
    for path in tmp_path.rglob("*.nii.gz"):
        if not path.name.startswith("."):
            array = np.asanyarray(nib.load(path).dataobj)
            rewrite(
                path,
                orientations.apply_orientation(array, turn),
                affine @ orientations.inv_ornt_aff(turn, array.shape[:3]),
            )
    patient = find_patient(folder)
    own = nib.load(patient.segmentation)
    assert "".join(nib.aff2axcodes(own.affine)) == codes

    scan = read_scan(patient)

    np.testing.assert_array_equal(scan.images, expected.images)
    np.testing.assert_array_equal(scan.regions, expected.regions)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
    assert scan.spacing == pytest.approx((1, 2, 3))
    torch.from_numpy(scan.regions)  # refuses the negative strides of a flipped view
    write_segmentation(tmp_path / "out.nii.gz", scan.regions, scan, patient.convention)
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), own.get_fdata())
    np.testing.assert_array_equal(written.affine, nib.load(patient.images["flair"]).affine)


def test_a_scan_has_four_float32_images_and_a_byte_of_regions(folder):
    scan = read_scan(find_patient(folder))

    assert scan.images.shape == (4, 48, 48, 24)
    assert scan.images.dtype == np.float32
    assert scan.regions.shape == (48, 48, 24)
    assert set(np.unique(scan.regions)) == {0b000, 0b001, 0b011, 0b111}
    for index, modality in enumerate(MODALITIES):
        own = nib.load(folder / f"{NAME}_{modality}.nii.gz").get_fdata()
        np.testing.assert_array_equal(scan.images[index], own)


def test_a_patient_without_segmentation_has_no_regions(folder):
    (folder / f"{NAME}_seg.nii.gz").unlink()

    assert read_scan(find_patient(folder)).regions is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_segmentation_may_be_stored_in_any_type(folder, dtype):
    path = folder / f"{NAME}_seg.nii.gz"
    expected = read_scan(find_patient(folder)).regions
    rewrite(path, nib.load(path).get_fdata().astype(dtype))

    np.testing.assert_array_equal(read_scan(find_patient(folder)).regions, expected)


def test_a_segmentation_with_another_origin_is_taken_because_its_tool_may_have_lost_it(folder):
    expected = read_scan(find_patient(folder)).regions
    rewrite(folder / f"{NAME}_seg.nii.gz", affine=np.diag([-1.0, -1, 1, 1]))

    np.testing.assert_array_equal(read_scan(find_patient(folder)).regions, expected)


def test_the_scaling_in_a_files_header_is_applied(folder):
    path = folder / f"{NAME}_t1.nii.gz"
    expected = nib.load(path).get_fdata() / 1000
    image = nib.Nifti1Image(expected, nib.load(path).affine)
    image.set_data_dtype(np.int16)
    image.to_filename(path)
    assert nib.load(path).dataobj.slope < 0.001  # stored as whole numbers from -32768 to 32767

    np.testing.assert_allclose(read_scan(find_patient(folder)).images[1], expected, atol=1e-4)


def test_compression_is_told_by_the_content_and_not_by_the_name(folder):
    expected = read_scan(find_patient(folder)).images
    path = folder / f"{NAME}_t1.nii.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))

    np.testing.assert_array_equal(read_scan(find_patient(folder)).images, expected)


def test_nifti_2_is_read_and_written_as_such(folder, tmp_path):
    expected = read_scan(find_patient(folder))
    for path in folder.iterdir():
        image = nib.load(path)
        nib.Nifti2Image(np.asanyarray(image.dataobj), image.affine).to_filename(path)

    scan = read_scan(find_patient(folder))

    np.testing.assert_array_equal(scan.images, expected.images)
    write_segmentation(tmp_path / "out.nii.gz", scan.regions, scan, BRATS_2020)
    assert isinstance(nib.load(tmp_path / "out.nii.gz"), nib.Nifti2Image)


def test_a_written_segmentation_keeps_the_codes_and_units_of_the_input(folder, tmp_path):
    flair = folder / f"{NAME}_flair.nii.gz"
    image = nib.load(flair)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(image.affine, code=2)
    image.set_sform(image.affine, code=4)
    image.header["cal_max"] = 900
    nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header).to_filename(flair)
    scan = read_scan(find_patient(folder))

    write_segmentation(tmp_path / "out.nii", scan.regions, scan, BRATS_2020)

    header = nib.load(tmp_path / "out.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (2, 4)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert float(header["cal_max"]) == 0
    assert header.get_data_shape() == (48, 48, 24)


def test_writing_makes_the_folder_and_leaves_nothing_else_behind(folder, tmp_path):
    scan = read_scan(find_patient(folder))
    out = tmp_path / "new" / "deep" / "Übung 1.nii.gz"

    write_segmentation(out, scan.regions, scan, BRATS_2020)

    assert [path.name for path in out.parent.iterdir()] == ["Übung 1.nii.gz"]
    assert nib.load(out).get_fdata().max() == 4


@pytest.mark.parametrize("name", ["out.mha", "out", "out.nii.zip"])
def test_only_nifti_names_are_written_to(folder, tmp_path, name):
    scan = read_scan(find_patient(folder))

    with pytest.raises(CourseError, match=r"ends in \.nii\.gz or \.nii"):
        write_segmentation(tmp_path / name, scan.regions, scan, BRATS_2020)


def test_a_folder_is_never_replaced_by_a_segmentation(folder, tmp_path):
    scan = read_scan(find_patient(folder))
    (tmp_path / "out.nii.gz").mkdir()
    (tmp_path / "out.nii.gz" / "precious.txt").write_text("x")

    with pytest.raises(CourseError, match="this is a folder"):
        write_segmentation(tmp_path / "out.nii.gz", scan.regions, scan, BRATS_2020)
    assert (tmp_path / "out.nii.gz" / "precious.txt").exists()


def test_a_segmentation_of_another_shape_is_refused(folder, tmp_path):
    scan = read_scan(find_patient(folder))

    with pytest.raises(
        CourseError, match=r"out\.nii\.gz: .*\(47, 48, 24\) doesn't fit a scan of \(48, 48, 24\)\. Give"
    ):
        write_segmentation(tmp_path / "out.nii.gz", scan.regions[1:], scan, BRATS_2020)
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_place_that_cannot_be_written_to_is_named(folder, tmp_path):
    scan = read_scan(find_patient(folder))
    (tmp_path / "file").write_text("x")

    with pytest.raises(CourseError, match=r"out\.nii\.gz: can't be written"):
        write_segmentation(tmp_path / "file" / "out.nii.gz", scan.regions, scan, BRATS_2020)


def test_a_full_disk_leaves_the_earlier_segmentation_untouched(folder, tmp_path, monkeypatch):
    scan = read_scan(find_patient(folder))
    out = tmp_path / "out" / "seg.nii.gz"
    write_segmentation(out, scan.regions, scan, BRATS_2020)
    before = out.read_bytes()

    def fill_up(image, path):
        Path(path).write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", fill_up)
    with pytest.raises(CourseError, match=r"seg\.nii\.gz: the disk is full"):
        write_segmentation(out, np.zeros_like(scan.regions), scan, BRATS_2020)

    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["seg.nii.gz"]
