"""Segment one patient: ``python -m emcad_lib.segment PATIENT_DIR --out FILE.nii.gz``.

The segmentation lies on the voxel grid of the patient's own images, in the labels of the patient's release of BraTS. A
model that only knows the whole tumour marks all of it with the label of oedema: in every release the whole tumour is
"any label", so the whole tumour is read back right, and nothing is claimed about the core.

This is a teaching tool and not a medical device.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from emcad_lib.data.brats import MODALITIES, Patient, Scan, find_patient, read_scan, write_segmentation
from emcad_lib.data.labels import region_mask
from emcad_lib.data.prepare import naming, normalise
from emcad_lib.evaluate.inference import known_regions, segment_scan
from emcad_lib.evaluate.metrics import dice, volume_cm3
from emcad_lib.evaluate.refine import REFINED
from emcad_lib.files import CourseError, check_place, replacing
from emcad_lib.model.weights import load_weights, weights_file
from emcad_lib.show.cases import linked_views


@dataclass(frozen=True)
class Segmented:
    """What came out for one patient.

    Attributes:
        patient: the patient's name.
        path: the file that was written.
        weights: the file of weights that was used.
        seconds: from reading the scan to the written file.
        volumes: region -> cm3, for each region that the model knows.
        scores: region -> Dice against the patient's own segmentation; empty where there is none.
        picture: the picture that was drawn, if one was asked for.
    """

    patient: str
    path: Path
    weights: Path
    seconds: float
    volumes: dict[str, float]
    scores: dict[str, float]
    picture: Path | None = None

    def __str__(self) -> str:
        volumes = ", ".join(f"{region} {volume:.1f} cm3" for region, volume in self.volumes.items())
        scores = ", ".join(f"{region} {score:.3f}" for region, score in self.scores.items())
        return (
            f"{self.patient}: segmented with {self.weights.name} in {self.seconds:.1f} s, written to {self.path}"
            + (f", drawn in {self.picture}" if self.picture else "")
            + f"\nTumour found: {volumes}."
            + (f" Dice with the patient's own segmentation: {scores}." if scores else "")
            + " This is a teaching tool, not a medical device."
        )


def segment_patient(
    patient_dir: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    threshold: float = 0.5,
    show: bool = False,
    refine: bool = True,
    picture: str | Path | None = None,
) -> Path:
    """Segment one patient and write the result as NIfTI, on the grid and in the label convention of the input.

    Args:
        patient_dir: the patient's folder, in any BraTS naming; a segmentation isn't needed.
        out: the file to write, .nii.gz or .nii. One that exists is replaced, once everything has gone well.
        weights: a file of ``save_weights``, or "whole" or "regions": see ``load_weights``.
        threshold: probability above which a voxel belongs to a region; between 0 and 1.
        show: show a progress bar.
        refine: average with mirrored slices, follow the patient's own brightness, drop crumbs: see ``refine.py``.
        picture: a .png file to draw the result in, from three sides. Without it, none is drawn.

    Returns:
        The path of the written file.

    Raises:
        CourseError: anything that is wrong with the patient, the weights, ``out`` or ``picture``. Nothing is written
            then.
    """
    return _segment(patient_dir, out, weights, threshold, show, refine, picture).path


def _segment(
    patient_dir: str | Path,
    out: str | Path,
    weights: str | Path | None,
    threshold: float,
    show: bool,
    refine: bool,
    picture: str | Path | None,
) -> Segmented:
    started = time.perf_counter()
    out = Path(out)
    patient = find_patient(patient_dir)
    _check_out(out, patient)  # before the work, not after it
    picture = None if picture is None else Path(picture)
    if picture:
        _check_picture(picture)
    model = load_weights(weights)
    regions = known_regions(model)
    scan = read_scan(patient)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = REFINED if refine else {}
    with naming(patient):
        bits = segment_scan(model, scan, threshold, device=device, show=show, **settings)
    write_segmentation(out, bits, scan, patient.convention)
    if picture:
        with replacing(picture) as beside:
            _draw(patient, scan, bits, regions).savefig(beside, dpi=120)
    seconds = time.perf_counter() - started

    volumes, scores = {}, {}
    for region in regions:
        mask = region_mask(bits, region)
        volumes[region] = volume_cm3(mask, scan.spacing)
        if scan.regions is not None:
            scores[region] = dice(mask, region_mask(scan.regions, region))
    return Segmented(patient.name, out, weights_file(weights), seconds, volumes, scores, picture)


def _draw(patient: Patient, scan: Scan, bits: NDArray[np.uint8], regions: Sequence[str]) -> Figure:
    """FLAIR from three sides where the most was found, with outlines: as found, and dashed the patient's own."""
    flair = normalise(scan.images)[MODALITIES.index("flair")]  # (I, J, K)
    (head,) = ndimage.find_objects((scan.images != 0).any(axis=0).astype(np.uint8))  # the box round the brain
    flair = flair[head]

    def masks(of: NDArray[np.uint8], whose: str) -> dict[str, NDArray[np.bool_]]:
        if len(regions) == 1:
            return {whose: region_mask(of[head], regions[0])}
        return {f"{region}, {whose}": region_mask(of[head], region) for region in regions}

    found = masks(bits, "found")
    own = {} if scan.regions is None else masks(scan.regions, "the patient's own" if len(regions) == 1 else "own")
    seen = next((mask for mask in (*found.values(), *own.values()) if mask.any()), flair != 0)
    k = int(seen.sum(axis=(0, 1)).argmax())
    i, j = np.median(np.argwhere(seen[:, :, k]), axis=0).astype(int)
    title = f"{patient.name} (FLAIR; bar: 50 mm). Teaching material, not a medical device."
    return linked_views(flair, found | own, (i, j, k), scan.spacing, title, dashed=list(own))


def _check_out(out: Path, patient: Patient) -> None:
    if not out.name.lower().endswith((".nii", ".nii.gz")):
        raise CourseError(f"{out}: a segmentation is written as NIfTI. Give --out a name that ends in .nii.gz or .nii.")
    check_place(out, "--out")
    own = [*patient.images.values(), *([patient.segmentation] if patient.segmentation else [])]
    if out.resolve() in [path.resolve() for path in own]:
        raise CourseError(f"{out}: this is one of the patient's own files, and would be lost. Give --out another name.")


def _check_picture(picture: Path) -> None:
    if picture.suffix.lower() != ".png":
        raise CourseError(f"{picture}: a picture is written as PNG. Give --picture a name that ends in .png.")
    check_place(picture, "--picture")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, or 1 after a message on what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m emcad_lib.segment",
        description="Segment the brain tumour of one patient. A model that only knows the whole tumour, as the "
        "reference weights do, marks all of it with the label of oedema, and claims nothing about the tumour's core. "
        "A teaching tool, not a medical device.",
    )
    parser.add_argument("patient_dir", metavar="PATIENT_DIR", help="the patient's folder, in any BraTS naming")
    parser.add_argument("--out", required=True, metavar="FILE.nii.gz", help="the segmentation to write or to replace")
    parser.add_argument("--picture", metavar="FILE.png", help="also draw the result from three sides")
    parser.add_argument(
        "--weights", metavar="FILE", help="weights of this course: a file, or whole (the default) or regions, which "
        "come with the course"
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="probability above which a voxel is tumour (default: 0.5)"
    )
    parser.add_argument(
        "--refine", action=argparse.BooleanOptionalAction, default=True, help="average with mirrored slices, follow "
        "the patient's own brightness, and drop crumbs, which takes longer"
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    try:
        threshold, refine = arguments.threshold, arguments.refine
        patient, out, picture = arguments.patient_dir, arguments.out, arguments.picture
        print(_segment(patient, out, arguments.weights, threshold, show=True, refine=refine, picture=picture))
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
