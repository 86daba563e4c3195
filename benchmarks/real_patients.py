"""How good are weights on real patients? python benchmarks/real_patients.py DIR [--weights FILE | --record]

Segments every patient of DIR that has a segmentation, first plainly and then with one more test-time step at a time,
and prints the whole-tumour Dice. With --record, which is for the reference weights, it writes two tables of numbers to
figures/recorded/: what was found in each patient with all steps, and the mean and median Dice after each step. It
shows and keeps no picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from emcad_lib.data.brats import find_patients, read_scan
from emcad_lib.data.labels import region_mask
from emcad_lib.evaluate.inference import segment_scan
from emcad_lib.evaluate.metrics import dice, volume_cm3
from emcad_lib.evaluate.refine import REFINED
from emcad_lib.files import CourseError, replacing
from emcad_lib.model.weights import load_weights
from emcad_lib.progress import progress

RECORDED = Path(__file__).parents[1] / "figures" / "recorded"

# Each step keeps those before it.
STEPS: dict[str, dict[str, Any]] = {
    "axial slices only": {"planes": ["axial"]},
    "and two other planes": {"planes": None},
    "but only some slices of those": {"every": REFINED["every"]},
    "and the mirror image": {"flip": REFINED["flip"]},
    "and the patient's own statistics": {"adapt": REFINED["adapt"]},
    "and no crumbs": {"crumbs": REFINED["crumbs"]},
}


def score(folder: Path, weights: Path | None, steps: Sequence[str] = tuple(STEPS)) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The Dice of each patient (row) after each of the first ``steps`` (column); and what was found after the last."""
    model = load_weights(weights)
    patients, problems = find_patients(folder, need_segmentation=True)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not patients:
        raise CourseError(f"{folder}: no patients with a segmentation here.")
    rows: dict[str, dict[str, float]] = {}
    details: dict[str, dict[str, float]] = {}
    for patient in progress(patients, "Segment", unit="patient"):
        scan = read_scan(patient)
        assert scan.regions is not None  # patients were sought with segmentations
        truth, settings = region_mask(scan.regions, "whole"), {}
        for step in steps:
            settings |= STEPS[step]
            found = region_mask(segment_scan(model, scan, **settings), "whole")
            rows.setdefault(patient.name, {})[step] = dice(found, truth)
        right = (found & truth).sum()
        details[patient.name] = {
            "true_cm3": volume_cm3(truth, scan.spacing),
            "found_cm3": volume_cm3(found, scan.spacing),
            "sensitivity": right / max(truth.sum(), 1),
            "precision": right / max(found.sum(), 1),
        }
    return pd.DataFrame(rows).T.rename_axis("patient"), pd.DataFrame(details).T.rename_axis("patient")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Score weights on real patients, with and without each step.")
    parser.add_argument("folder", type=Path, help="a folder of BraTS patients")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--weights", type=Path, help="weights of this course (default: the reference weights)")
    either.add_argument("--record", action="store_true", help="write the tables to figures/recorded/")
    arguments = parser.parse_args(argv)
    try:
        scores, details = score(arguments.folder, arguments.weights)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    steps = pd.DataFrame({"mean": scores.mean(), "median": scores.median()}).rename_axis("step")
    print(scores.round(3).to_string())
    print(details.round(3).to_string())
    print(steps.round(3).to_string())
    if arguments.record:
        dices = pd.DataFrame({"dice": scores.iloc[:, -1], "dice_plain": scores["and two other planes"]})
        final = dices.join(details)
        for name, table in (("reference_weights_real_patients", final), ("refinements_real_patients", steps)):
            with replacing(RECORDED / f"{name}.csv") as beside:
                table.to_csv(beside, float_format="%.3f")
    return 0


if __name__ == "__main__":
    sys.exit(main())
