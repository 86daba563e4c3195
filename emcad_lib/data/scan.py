"""One patient from files to arrays and back.

Files may store a head in any orientation. Arrays here always run towards the patient's left, back (posterior) and top
(superior), "LPS", as BraTS itself stores them; a segmentation is written in the orientation of the input again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from emcad_lib.data.labels import LabelConvention
from emcad_lib.data.nifti import LPS, PatientError, check_grid, check_values, numbers, open_image, orientation_to_lps
from emcad_lib.files import CourseError, replacing

MODALITIES = ("flair", "t1", "t1ce", "t2")


@dataclass(frozen=True)
class Patient:
    """Where one patient's files are.

    Attributes:
        name: the patient's name, from the files' names.
        images: modality -> file, for all of :data:`MODALITIES`; in the Decathlon all four are the same 4D file.
        segmentation: the labels' file, or None.
        convention: what the labels mean.
    """

    name: str
    images: Mapping[str, Path]
    segmentation: Path | None
    convention: LabelConvention


@dataclass(frozen=True)
class Grid:
    """The voxel grid of the input's files: what a segmentation needs to be written beside them."""

    shape: tuple[int, ...]  # of one volume, three numbers
    affine: NDArray[np.float64]  # (4, 4)
    header: Any  # a nibabel header: the codes and units that come with the affine


@dataclass(frozen=True)
class Scan:
    """One patient's arrays, with axes towards left, posterior, superior.

    Attributes:
        images: float32 (4, I, J, K) in the order of :data:`MODALITIES`.
        regions: uint8 (I, J, K) region bits (see ``labels.py``), or None without a segmentation.
        affine: (4, 4), from the indices of these arrays to millimetres (right, anterior, superior, as in NIfTI).
        original: the grid of the files, for the way back.
    """

    images: NDArray[np.float32]
    regions: NDArray[np.uint8] | None
    affine: NDArray[np.float64]
    original: Grid

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between neighbouring voxels along each axis."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


def read_scan(patient: Patient) -> Scan:
    """Read and check all images of a patient, and the segmentation where there is one.

    Raises:
        PatientError: a file is missing, empty, truncated, not NIfTI or not readable; shapes or orientations differ; an
            image holds NaN or infinity, or nothing but zeros; a label is unknown.
    """
    paths = [patient.images[modality] for modality in MODALITIES]
    joint = len(set(paths)) == 1  # the Decathlon's 4D file
    first = open_image(patient.name, paths[0], dimensions=4 if joint else 3)
    if joint and first.shape[3] != len(MODALITIES):
        raise PatientError(
            patient.name, paths[0], f"it holds {first.shape[3]} volumes where {len(MODALITIES)} are expected",
            "Put a 4D file of the Decathlon's Task01 in its place, with FLAIR, T1w, T1gd and T2w, in this order",
        )  # fmt: skip
    grid = Grid(first.shape[:3], first.affine, first.header)
    to_lps = orientation_to_lps(patient.name, paths[0], grid.affine)

    volumes = np.moveaxis(numbers(first), 3, 0) if joint else None
    lps_shape = orientations.apply_orientation(np.empty(grid.shape, dtype=bool), to_lps).shape
    # Laid out with I fastest, as NIfTI stores it: axial slices are then contiguous, and filling it is a plain copy.
    images = np.empty((len(MODALITIES), *lps_shape[::-1]), dtype=np.float32).transpose(0, 3, 2, 1)
    for index, (modality, path) in enumerate(zip(MODALITIES, paths, strict=True)):
        if volumes is not None:
            volume = volumes[index]
        else:
            image = first if index == 0 else open_image(patient.name, path, dimensions=3)
            check_grid(patient.name, path, image, first, whole_affine=True)
            volume = numbers(image)
        check_values(patient.name, path, modality, volume)
        images[index] = orientations.apply_orientation(volume, to_lps)

    regions = None
    if patient.segmentation is not None:
        image = open_image(patient.name, patient.segmentation, dimensions=3)
        # Segmentations are drawn by hand, and the tools used for it don't all keep the origin: orientation must do.
        check_grid(patient.name, patient.segmentation, image, first, whole_affine=False)
        try:
            regions = patient.convention.regions(np.asanyarray(image.dataobj))
        except CourseError as error:
            raise PatientError(
                patient.name, patient.segmentation, str(error),
                "Mend the segmentation; or, if it follows another year's labels, name all files as that year does",
            ) from error  # fmt: skip
        regions = np.asfortranarray(orientations.apply_orientation(regions, to_lps))
    affine = grid.affine @ orientations.inv_ornt_aff(to_lps, grid.shape)
    return Scan(images, regions, affine, grid)


def write_segmentation(path: str | Path, bits: NDArray[np.uint8], scan: Scan, convention: LabelConvention) -> None:
    """Write region ``bits`` (I, J, K) of ``scan`` as uint8 labels on the grid of the input's own files.

    Raises:
        CourseError: ``bits`` don't fit the scan; ``path`` isn't called .nii or .nii.gz, or can't be written.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise CourseError(f"{path}: a segmentation is written as NIfTI. Choose a name that ends in .nii.gz or .nii.")
    if path.is_dir():
        raise CourseError(f"{path}: this is a folder. Choose the name of a file.")
    if np.shape(bits) != scan.images.shape[1:]:
        raise CourseError(
            f"{path}: a segmentation of shape {np.shape(bits)} doesn't fit a scan of {scan.images.shape[1:]}. Give one "
            f"on the scan's own grid."
        )
    back = orientations.ornt_transform(LPS, orientations.io_orientation(scan.original.affine))
    labels = orientations.apply_orientation(convention.encode(bits), back)
    header = scan.original.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0  # the display window of the input image says nothing about labels
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    try:
        with replacing(path) as beside:
            image_class(labels, scan.original.affine, header).to_filename(beside)
    except OSError as error:
        raise CourseError(f"{path}: can't be written ({error.strerror}). Choose another place for it.") from error
