"""What phantom patients cost: python benchmarks/phantom.py [--counts 8 32 128] [--workers 1 2]

Runs data_scripts/make_phantom.py as a user would, start of the program included, and reads from the system how long it
took and how much memory it held. The baseline, in the same run, is one patient whose smooth fields and blurs are made
with SciPy's splines and filters, as one would write them first. Prints a table, and writes it as CSV with --out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from emcad_lib.data import contrast
from emcad_lib.data.anatomy import one_thread
from emcad_lib.data.fields import Fields
from emcad_lib.data.phantom import make_phantom

SCRIPT = Path(__file__).parents[1] / "data_scripts" / "make_phantom.py"


def measure(patients: int, workers: int) -> dict[str, float]:
    """Make ``patients`` in a fresh folder with ``workers``: seconds, seconds per patient and core, and memory."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, str(SCRIPT), "--out", folder, "--patients", str(patients), "--workers", str(workers)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{SCRIPT.name} failed with exit status {os.waitstatus_to_exitcode(status)}.")
    kilobyte = 1 if sys.platform == "darwin" else 1024  # what the system counts the memory in
    return {
        "patients": patients,
        "workers": workers,
        "seconds": seconds,
        "seconds per patient and core": seconds * min(workers, patients, os.cpu_count() or 1) / patients,
        "processor seconds per patient": (usage.ru_utime + usage.ru_stime) / patients,
        "peak memory per worker, MB": usage.ru_maxrss * kilobyte / workers / 1e6,
    }


def with_scipy() -> float:
    """Seconds for one patient on one core with SciPy's splines and filters in place of small matrices."""

    def smooth(
        self: Fields, name: str, size: float | Sequence[float], step: int = 1, part: Sequence[slice] | None = None
    ) -> torch.Tensor:
        sizes = [size] * 3 if isinstance(size, int | float) else size
        lengths = [len(range(0, length, step)) for length in self.shape]
        knots = [int(np.ceil(length / width)) + 3 for length, width in zip(self.shape, sizes, strict=True)]
        values = self.random(name).standard_normal(knots, dtype=np.float32)
        factors = [length / count for length, count in zip(lengths, knots, strict=True)]
        field = torch.from_numpy(ndimage.zoom(values, factors, order=3))
        return field[tuple(part)] if part else field

    def blur(image: torch.Tensor, sigma: Sequence[float], shift: Sequence[float] = (0, 0, 0)) -> torch.Tensor:
        blurred = ndimage.gaussian_filter(image.numpy(), sigma, mode="nearest")
        if any(shift):
            blurred = ndimage.shift(blurred, [-offset for offset in shift], order=1, mode="nearest")
        return torch.from_numpy(blurred)

    with patch.object(Fields, "smooth", smooth), patch.object(contrast, "blur", blur), one_thread():
        began = time.perf_counter()
        make_phantom(0, 0)
        return time.perf_counter() - began


def without_scipy() -> float:
    """The same patient as the library makes it, on one core."""
    with one_thread():
        began = time.perf_counter()
        make_phantom(0, 0)
        return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Measure what making phantom patients costs.")
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 32], help="how many patients, one run for each")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1], help="one run for each")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    arguments = parser.parse_args(argv)
    table = pd.DataFrame([measure(count, workers) for count in arguments.counts for workers in arguments.workers])
    print(table.round(2).to_string(index=False))
    without_scipy()  # reads the template, which the measured ones needn't
    ours, theirs = min(without_scipy() for _ in range(3)), with_scipy()
    print(f"One patient in memory, one core: {ours:.2f} s; with SciPy's fields and filters {theirs:.2f} s,")
    print(f"which is {theirs / ours:.1f} times as long.")
    if arguments.out:
        table.assign(scipy_ratio=theirs / ours).to_csv(arguments.out, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
