"""Compare phantoms with real patients: python data_scripts/compare_phantom.py DIR [--population CSV] [--out CSV]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.population import PERCENTILES, POPULATION, measure, percentiles, side_by_side
from emcad_lib.files import CourseError, check_place, replacing
from emcad_lib.progress import progress


def measure_folder(patient: Path) -> dict[str, float]:
    """The quantities of the phantom in that folder.

    Raises:
        CourseError: naming the file that can't be read.
    """
    voxels = {}
    for name in (*MODALITIES, "seg"):
        path = patient / f"{patient.name}_{name}.nii.gz"
        try:
            voxels[name] = np.asanyarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj)
        except Exception as error:  # nibabel, gzip and NumPy each have their own
            raise CourseError(
                f"{path}: this file of {patient.name} can't be read ({error}). Delete the patient's folder, and run "
                f"data_scripts/make_phantom.py again."
            ) from error
    labels = voxels.pop("seg")
    return measure(voxels, labels)


def read_population(path: Path) -> pd.DataFrame:
    """A table of percentiles, a row for each quantity.

    Raises:
        CourseError: there is no such file, or it isn't such a table.
    """
    try:
        table = pd.read_csv(path, index_col="quantity")
        return table[[f"p{percent}" for percent in PERCENTILES]].astype(float)
    except (OSError, ValueError, KeyError) as error:
        columns = ", ".join(f"p{percent}" for percent in PERCENTILES)
        raise CourseError(
            f"{path}: this is no table with the columns quantity, {columns} ({error}). Give --population one that has "
            f"them, or leave it out."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Print phantom and real percentiles side by side.")
    parser.add_argument("folder", type=Path, help="the folder of phantom patients")
    parser.add_argument("--population", type=Path, default=POPULATION, help="percentiles of real patients (CSV)")
    parser.add_argument("--out", type=Path, help="write the table as CSV as well")
    arguments = parser.parse_args(argv)
    try:
        if arguments.out:
            check_place(arguments.out, "--out")
        population = read_population(arguments.population)  # before the work, not after it
        patients = sorted(arguments.folder.glob("Phantom_*"))
        if not patients:
            raise CourseError(
                f"{arguments.folder}: no phantom patients here. Give the folder that data_scripts/make_phantom.py has "
                f"made them in."
            )
        measured = [measure_folder(patient) for patient in progress(patients, "Measuring", unit="patient")]
        table = side_by_side(percentiles(measured), population)
        if arguments.out:
            with replacing(arguments.out) as beside:
                table.to_csv(beside, float_format="%.3f")
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(table.round(2).to_string())
    fits, alike = table["median fits"], table["spread"].between(0.5, 2)
    print(f"{len(table)} quantities: {fits.sum()} medians within the real middle half, {alike.sum()} like spreads.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
