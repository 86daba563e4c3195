"""How long is a patient from disk to disk? python benchmarks/segment.py PATIENT_DIR [--repeats 3]

Runs ``python -m emcad_lib.segment`` as a user would, start of the program included. The baseline, in the same run, is
the same command with --no-refine: the planes of the training, and none of the other test-time steps. Prints a table,
and writes it as CSV with --out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def seconds(patient: Path, *options: str) -> float:
    """Seconds that one segmentation of ``patient`` takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "emcad_lib.segment", str(patient), "--out", f"{folder}/seg.nii.gz", *options]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Time a segmentation from disk to disk.")
    parser.add_argument("patient", type=Path, help="one patient's folder, in any BraTS naming")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind; the median counts (default: 3)")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error("--repeats is 1 or more")
    kinds = {"default": (), "with --no-refine": ("--no-refine",)}
    # In turns, so that a slow minute of the machine hits both alike.
    runs = [{kind: seconds(arguments.patient, *options) for kind, options in kinds.items()}
            for _ in range(arguments.repeats)]  # fmt: skip
    table = pd.DataFrame(runs).median().rename("seconds").to_frame().rename_axis("command")
    table["ratio"] = table["seconds"] / table["seconds"].iloc[-1]
    print(table.round(2).to_string())
    if arguments.out:
        table.to_csv(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
