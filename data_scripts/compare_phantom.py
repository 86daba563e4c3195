"""Compare phantoms with real patients: python data_scripts/compare_phantom.py DIR [--population CSV]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.population import POPULATION, measure, percentiles, side_by_side
from emcad_lib.files import CourseError
from emcad_lib.progress import progress


def measure_folder(patient: Path) -> dict[str, float]:
    """The quantities of the phantom in that folder."""
    voxels = {
        name: np.asanyarray(nib.nifti1.Nifti1Image.from_filename(patient / f"{patient.name}_{name}.nii.gz").dataobj)
        for name in (*MODALITIES, "seg")
    }
    labels = voxels.pop("seg")
    return measure(voxels, labels)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Print phantom and real percentiles side by side.")
    parser.add_argument("folder", type=Path, help="the folder of phantom patients")
    parser.add_argument("--population", type=Path, default=POPULATION, help="percentiles of real patients (CSV)")
    arguments = parser.parse_args(argv)
    try:
        patients = sorted(arguments.folder.glob("Phantom_*"))
        if not patients:
            raise CourseError(f"{arguments.folder}: no phantom patients here. data_scripts/make_phantom.py makes some.")
        measured = [measure_folder(patient) for patient in progress(patients, "Measuring", unit="patient")]
        table = side_by_side(percentiles(measured), pd.read_csv(arguments.population, index_col="quantity"))
    except (CourseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table.round(2).to_string())
    fits, alike = table["median fits"], table["spread"].between(0.5, 2)
    print(f"{len(table)} quantities: {fits.sum()} medians within the real middle half, {alike.sum()} like spreads.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
