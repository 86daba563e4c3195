"""NIfTI files, with one clear message for everything that can be wrong with one.

Everything is checked before a voxel is used: a file that is cut short or damaged in transit often still opens.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from emcad_lib.files import CourseError

LPS = orientations.axcodes2ornt("LPS")

_AGAIN = "Copy or download the file again, or leave this patient out"
_SAME_GRID = "All files of a patient must lie on one voxel grid: take them from the same release, or resample them"


class PatientError(CourseError):
    """What is wrong with one patient, in one line: patient, file, problem, remedy.

    Attributes:
        patient: the patient's name.
        file: the file or folder that is at fault. Messages show only its name: they may end up in a notebook.
        problem: what is wrong, without a full stop.
        remedy: what the reader can do, without a full stop.
    """

    def __init__(self, patient: str, file: str | Path, problem: str, remedy: str) -> None:
        # All four go to Exception's own args, so that the error survives the way back from a worker process.
        super().__init__(patient, file, problem, remedy)
        self.patient, self.file, self.problem, self.remedy = patient, Path(file), problem, remedy

    def __str__(self) -> str:
        message = f"Patient {self.patient}, {self.file.name}: {self.problem}. {self.remedy}."
        return " ".join(message.splitlines())


def open_image(patient: str, path: Path, dimensions: int) -> Any:
    """The NIfTI image in a file, its voxels all there but not converted yet.

    The whole file is read and decompressed at once, because only that verifies the checksum at a .gz file's end.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise PatientError(patient, path, "there is no such file", "Put it there, or leave the patient out") from error
    except OSError as error:
        raise PatientError(
            patient, path, f"it can't be read ({error.strerror})", "Check the permissions of the file and of its folder"
        ) from error
    if not content:
        raise PatientError(patient, path, "the file is empty", _AGAIN)
    if content[:2] == b"\x1f\x8b":  # whatever the suffix says
        try:
            content = igzip.decompress(content)  # gzip, only faster
        except (EOFError, igzip_lib.IsalError, igzip.BadGzipFile) as error:  # type: ignore[misc]  # isal names its types wrongly
            raise PatientError(patient, path, "the compressed file is truncated or damaged", _AGAIN) from error
    image = _parse(content)
    if image is None:
        raise PatientError(
            patient, path, "this is not a NIfTI image, whatever its name says", "Put the real image in its place"
        )
    if len(image.shape) != dimensions:
        raise PatientError(
            patient, path, f"it has {len(image.shape)} dimensions {image.shape} where {dimensions} are expected",
            f"Put a {dimensions}D file in its place: BraTS has one 3D file per modality, the Decathlon one 4D file per "
            f"patient",
        )  # fmt: skip
    dtype = image.get_data_dtype()
    if dtype.kind not in "uif" or min(image.shape) < 1:
        raise PatientError(patient, path, f"it holds no grey values (shape {image.shape}, {dtype})", _AGAIN)
    expected = image.dataobj.offset + math.prod(image.shape) * dtype.itemsize
    if len(content) < expected:
        problem = f"the file is truncated: {len(content)} bytes of {expected} are there"
        raise PatientError(patient, path, problem, _AGAIN)
    return image


def _parse(content: bytes) -> Any:
    """The image in the bytes of a .nii file, or None if they aren't one."""
    for image_class in (nib.Nifti1Image, nib.Nifti2Image):
        if image_class.header_class.may_contain_header(content):
            try:
                return image_class.from_bytes(content)
            except (HeaderDataError, ImageFileError, ValueError, OverflowError):
                return None
    return None


def numbers(image: Any) -> NDArray[np.float32]:
    """The voxel values with the file's scaling, as float32; what is too large for that becomes infinity."""
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = image.get_fdata(dtype=np.float32, caching="unchanged")
    return values


def orientation_to_lps(patient: str, path: Path, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """How to turn a file's axes to LPS, for nibabel's ``apply_orientation``."""
    orientation = orientations.io_orientation(affine) if np.isfinite(affine).all() else np.full((3, 2), np.nan)
    if np.isnan(orientation).any():
        raise PatientError(patient, path, "its affine gives no orientation", "Mend the header (sform and qform)")
    return orientations.ornt_transform(orientation, LPS)


def check_grid(patient: str, path: Path, image: Any, first: Any, whole_affine: bool) -> None:
    """Refuse a 3D file whose voxels aren't those of the patient's ``first`` image (3D or 4D)."""
    if image.shape != first.shape[:3]:
        problem = f"its shape {image.shape} differs from the {first.shape[:3]} of the patient's first image"
        raise PatientError(patient, path, problem, _SAME_GRID)
    orientation_to_lps(patient, path, image.affine)
    codes, expected = ("".join(nib.aff2axcodes(affine)) for affine in (image.affine, first.affine))
    if codes != expected:
        problem = f"its orientation {codes} differs from the {expected} of the patient's first image"
        raise PatientError(patient, path, problem, _SAME_GRID)
    if whole_affine and not np.allclose(image.affine, first.affine, atol=0.01):
        raise PatientError(
            patient, path, "its origin or voxel size differs from that of the patient's first image", _SAME_GRID
        )


def check_values(patient: str, path: Path, modality: str, volume: NDArray[np.float32]) -> None:
    """Refuse an image (I, J, K) that no scanner makes."""
    finite = np.isfinite(volume)
    if not finite.all():
        problem = f"the {modality} image holds NaN or infinity in {np.count_nonzero(~finite)} voxels"
        raise PatientError(
            patient, path, problem, "Replace them by 0, the value outside the brain, or leave the patient out"
        )
    if not volume.any():
        raise PatientError(patient, path, f"the {modality} image is zero everywhere", _AGAIN)
