"""What does it cost to prepare a patient? python benchmarks/preprocessing.py DATA_DIR [--counts 8 32] [--out FILE]

Runs data_scripts/preprocess.py as a user would, start of the program included, with a worker per core, and looks often
at its processes. The baseline, in the same run: one patient's slices as many code bases keep them, float64 z-scores
(240, 240, 4) and the mask, a .npz file for each of the 155, plain ("npz") and compressed ("npz (compressed)").

Seconds per patient and core are by the clock; seconds of the processor per patient change less with what else runs on
the machine. Memory is the largest process's own, as in ``sizing.py``. MB are 1e6 bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from emcad_lib.data.anatomy import one_thread
from emcad_lib.data.brats import find_patients, read_scan
from emcad_lib.data.scan import Patient
from emcad_lib.files import CourseError, replacing

sys.path.insert(0, str(Path(__file__).parent))
from sizing import CORES, prepare


def write_npz(patient: Patient, folder: Path, save: Callable[..., None]) -> None:
    """The baseline: z-scores of each image over its brain, and a file for each slice."""
    scan = read_scan(patient)
    images = scan.images.astype(np.float64)
    for image in images:
        brain = image != 0
        image[brain] = (image[brain] - image[brain].mean()) / image[brain].std()
    assert scan.regions is not None  # patients were sought with segmentations
    for number in range(images.shape[-1]):
        x = np.moveaxis(images[..., number], 0, -1)
        save(folder / f"{patient.name}_{number}.npz", image=x, mask=scan.regions[..., number] & 1)


def baseline(patient: Patient, name: str, save: Callable[..., None]) -> dict[str, object]:
    """A row of the table for one patient, on one core."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        began, worked = time.perf_counter(), time.process_time()
        write_npz(patient, Path(folder), save)
        seconds, processor = time.perf_counter() - began, time.process_time() - worked
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return row(name, 1, seconds, processor, size)


def course(data_dir: Path, patients: int) -> dict[str, object]:
    """A row of the table for the first so many patients."""
    with tempfile.TemporaryDirectory() as folder:
        done = prepare(data_dir, Path(folder), patients)
    at_once = min(CORES, done.patients)
    measured = row(
        "cache", done.patients, done.took.seconds * at_once, done.took.core_seconds, done.cache_bytes
    )  # fmt: skip
    return {**measured, "largest process, MB": done.took.peak_bytes / 1e6}


def row(way: str, patients: int, core_time: float, processor: float, size: int) -> dict[str, object]:
    """What all patients took together, per patient."""
    return {
        "way": way,
        "patients": patients,
        "seconds per patient and core": core_time / patients,
        "processor seconds per patient": processor / patients,
        "MB per patient": size / patients / 1e6,
    }


def measure(data_dir: Path, counts: Sequence[int]) -> pd.DataFrame:
    """A row for each kind of baseline, and one for each number of patients."""
    patients, _ = find_patients(data_dir, need_segmentation=True)
    if len(patients) < max(counts):
        raise CourseError(f"{data_dir}: {max(counts)} patients are needed, and {len(patients)} are here.")
    rows = [baseline(patients[0], "npz", np.savez), baseline(patients[0], "npz (compressed)", np.savez_compressed)]
    rows += [course(data_dir, count) for count in counts]
    table = pd.DataFrame(rows)
    table["share of npz's MB"] = table["MB per patient"] / table["MB per patient"][0]
    return table.assign(load=round(os.getloadavg()[0], 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Measure what preparing patients costs.")
    parser.add_argument("data_dir", type=Path, help="a folder of patients with segmentations")
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 32], help="how many of them, one run for each")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    arguments = parser.parse_args(argv)
    if min(arguments.counts) < 1:
        parser.error("--counts are 1 or more")
    try:
        table = measure(arguments.data_dir.absolute(), arguments.counts)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(table.round(2).to_string(index=False))
    if arguments.out:
        with replacing(arguments.out) as beside:
            table.to_csv(beside, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
