"""Measure segmentations from the command line: ``python -m emcad_lib.evaluate DATA_DIR --out TABLE.csv``.

Every patient of a folder, in any BraTS naming and label convention, is segmented and compared with its own
segmentation, region by region; or segmentations that are there already, ours or anyone's, are compared (--predictions).
The table is written after each patient, and a second call goes on where one was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from emcad_lib.data.brats import Patient, PatientError, Scan, find_patients, read_scan
from emcad_lib.data.labels import REGIONS
from emcad_lib.data.prepare import naming
from emcad_lib.evaluate.inference import segment_scan
from emcad_lib.evaluate.known import known_regions
from emcad_lib.evaluate.refine import REFINED
from emcad_lib.evaluate.report import MEASURES, measure_patient, summarise
from emcad_lib.files import CourseError, check_place, replacing, sha256
from emcad_lib.model.weights import load_weights, weights_file
from emcad_lib.progress import progress

Segment = Callable[[Patient, Scan], NDArray[np.uint8]]  # region bits (I, J, K) of a patient
Identify = Callable[[Patient], str]  # what a patient is measured with

COLUMNS = ["patient", "region", *MEASURES, "by"]


def evaluate(
    data_dir: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    predictions: str | Path | None = None,
    refine: bool = True,
    limit: int = 0,
) -> tuple[pd.DataFrame, list[PatientError]]:
    """Measure every patient under a folder who has a segmentation, and write the table.

    Args:
        data_dir: a folder of patients, in any BraTS naming.
        out: the CSV to write, or to go on with: a row for each patient and region, with the columns of `MEASURES`, and
            what was measured ("by": the beginning of the hash of the weights, or of the patient's prediction).
        weights: a file of ``save_weights``, or "whole" or "regions": see ``load_weights``.
        predictions: in place of weights, a folder of segmentations: PATIENT.nii.gz, or PATIENT_seg.nii.gz, each on the
            grid and in the labels of the patient's own files.
        refine: use the steps of ``refine.py``, as ``python -m emcad_lib.segment`` does.
        limit: only the first so many patients; 0: all of them.

    Returns:
        The table of these patients, and those that were left out, with the reason.

    Raises:
        CourseError: no patient, no weights; a table that isn't one of ours, or was measured otherwise, which stays.
    """
    out = Path(out)
    check_place(out, "--out")
    if limit < 0:
        raise CourseError(f"--limit must be 0, for all patients, or more, not {limit}.")
    patients, problems = find_patients(data_dir, need_segmentation=True)
    patients = patients[: limit or None]
    if predictions is None:
        segment, regions, by = _by_network(weights, refine)
    else:
        segment, by = _from_files(Path(predictions))
        regions = list(REGIONS)
    table = _earlier(out)
    done = set(table["patient"])
    for patient in patients:
        if patient.name in done and set(table.loc[table["patient"] == patient.name, "by"]) != {by(patient)}:
            raise CourseError(
                f"{out}: patient {patient.name} was measured with other weights, settings or predictions here. Give "
                f"--out another name."
            )
    for patient in progress([one for one in patients if one.name not in done], "evaluate", unit="patient"):
        try:
            scan = read_scan(patient)
            assert scan.regions is not None  # patients were sought with segmentations
            rows = measure_patient(segment(patient, scan), scan.regions, scan.spacing, regions)
        except PatientError as error:
            problems.append(error)
            continue
        rows = rows.assign(patient=patient.name, by=by(patient))[COLUMNS]
        table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
        with replacing(out) as beside:
            table.to_csv(beside, index=False, float_format="%.6g")
    return table[table["patient"].isin([patient.name for patient in patients])], problems


def _by_network(weights: str | Path | None, refine: bool) -> tuple[Segment, list[str], Identify]:
    path = weights_file(weights)
    model = load_weights(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = REFINED if refine else {}

    def segment(patient: Patient, scan: Scan) -> NDArray[np.uint8]:
        with naming(patient):
            return segment_scan(model, scan, device=device, **settings)

    by = f"{sha256(path)[:12]}{'' if refine else ', plainly'}"
    return segment, known_regions(model), lambda patient: by


def _from_files(folder: Path) -> tuple[Segment, Identify]:
    if not folder.is_dir():
        what = "this is a file, not a folder" if folder.exists() else "there is no such folder"
        raise CourseError(f"{folder}: {what}. Give --predictions the folder that holds the segmentations.")

    def file_of(patient: Patient) -> Path:
        names = [f"{patient.name}{ending}.nii{packed}" for ending in ("", "_seg", "-seg") for packed in (".gz", "")]
        file = next((folder / name for name in names if (folder / name).is_file()), None)
        if file is None:
            remedy = f"Put it into the folder {folder}, on the grid of the patient's files"
            raise PatientError(patient.name, folder / names[0], "this prediction is missing", remedy)
        return file

    def read(patient: Patient, scan: Scan) -> NDArray[np.uint8]:
        bits = read_scan(replace(patient, segmentation=file_of(patient))).regions  # with all checks of grid and labels
        assert bits is not None
        return bits

    return read, lambda patient: sha256(file_of(patient))[:12]


def _earlier(out: Path) -> pd.DataFrame:
    """What an earlier call has written."""
    if not out.exists():
        return pd.DataFrame(columns=COLUMNS)
    try:
        table = pd.read_csv(out, dtype={"patient": str, "by": str})
    except (OSError, ValueError) as error:
        raise CourseError(f"{out}: this can't be read as a table ({error}). Give --out another name.") from error
    if list(table.columns) != COLUMNS:
        raise CourseError(f"{out}: this is another table, and would be lost. Give --out another name.")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, or 1 after a message on what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m emcad_lib.evaluate",
        description="Measure segmentations of BraTS patients, region by region: Dice, HD95, sensitivity, specificity, "
        "volumes; with means and 95 % intervals. A teaching tool, not a medical device.",
    )
    parser.add_argument("data_dir", metavar="DATA_DIR", help="a folder of patients with segmentations, in any naming")
    parser.add_argument("--out", required=True, metavar="TABLE.csv", help="the table to write, or to go on with")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--weights", metavar="FILE", help="as in python -m emcad_lib.segment")
    either.add_argument("--predictions", metavar="DIR", help="compare the segmentations in this folder instead")
    parser.add_argument("--limit", type=int, default=0, help="only the first so many patients (default: all)")
    parser.add_argument(
        "--refine", action=argparse.BooleanOptionalAction, default=True, help="as in python -m emcad_lib.segment"
    )
    arguments = parser.parse_args(argv)
    try:
        table, problems = evaluate(**vars(arguments))
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    for problem in problems:
        print(f"Left out: {problem}", file=sys.stderr)
    if not len(table):
        print(f"{arguments.data_dir}: no patient could be measured. Mend what is named above.", file=sys.stderr)
        return 1
    print(summarise(table).round(3).to_string(index=False))
    print(f"Patients: {table['patient'].nunique()}. One by one: {arguments.out}")
    parts = table[table["region"] != REGIONS[0]]
    if arguments.predictions and parts["true_cm3"].any() and not parts["found_cm3"].any():
        print("Not one prediction marks a part of its tumour. If they know the whole tumour only, read only its rows.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
