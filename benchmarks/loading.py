"""How fast do slices come from the cache? python benchmarks/loading.py CACHE_DIR [--repeats 5] [--out FILE]

Batches of 16 slices in random order, ready for augmentation and a network of 224 x 224 pixels, without a network.

- "npz": the baseline, as many code bases keep BraTS. A compressed .npz file for each slice, with float64 z-scores
  (240, 240, 4) and the mask, loaded, cut to the same canvas and stacked.
- "cache": the same slices by ``SliceDataset``.
- "cache (first epoch)": by a dataset that was opened just now, from files that the system has been asked to forget
  (Linux's ``posix_fadvise``; the machine under a virtual one may remember them all the same).

They take turns, so that a slow minute of the machine hits all of them, and medians count. Beside the slices per second
stand those per second of the processor, which another program on the machine changes less. A few patients are copied
to a temporary folder first: files that another program has open can't be forgotten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from emcad_lib.data.cache import MANIFEST, Cache, patient_folder
from emcad_lib.data.prepare import dequantise
from emcad_lib.data.scan import MODALITIES
from emcad_lib.data.slices import SliceDataset, fit_canvas
from emcad_lib.files import CourseError, read_json, replacing, write_json

IMAGE_SIZE, BATCH_SIZE = 224, 16
CHANNELS = [MODALITIES.index(name) for name in ("flair", "t1ce", "t2")]


def copy_cache(cache: Cache, patients: int, folder: Path) -> Path:
    """A cache of the first few patients."""
    manifest = read_json(cache.folder / MANIFEST)
    names = cache.names()[:patients]
    for name in names:
        shutil.copytree(patient_folder(cache.folder, name), patient_folder(folder, name))
    write_json(folder / MANIFEST, {**manifest, "patients": {name: manifest["patients"][name] for name in names}})
    return folder


def write_npz(cache: Cache, folder: Path) -> list[Path]:
    """The baseline's files, as the dataset orders them: a whole slice of the scan in each (BraTS: 240 x 240)."""
    folder.mkdir()
    paths = []
    for name in cache.names():
        record = cache.manifest["patients"][name]
        (left, _), (front, _), _ = record["box"]
        columns, rows, _ = record["shape"]
        for number, (image, bits) in enumerate(zip(cache.images(name), cache.regions(name), strict=True)):
            height, width = bits.shape
            inside = slice(front, front + height), slice(left, left + width)
            x, y = np.zeros((rows, columns, len(MODALITIES))), np.zeros((rows, columns))
            x[inside], y[inside] = np.moveaxis(dequantise(np.array(image)), 0, -1), bits & 1
            paths.append(folder / f"{name}_{number}.npz")
            np.savez_compressed(paths[-1], image=x, mask=y)
    return paths


def load_npz(paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """A batch as the dataset gives it, but for where the head lies: x (B, 3, N, N) and y (B, 1, N, N)."""
    images, masks = [], []
    for path in paths:
        with np.load(path) as slices:
            images.append(np.moveaxis(slices["image"][..., CHANNELS], -1, 0).astype(np.float32))
            masks.append(slices["mask"][None] > 0.5)
    x, y = fit_canvas(np.stack(images), IMAGE_SIZE), fit_canvas(np.stack(masks), IMAGE_SIZE)
    return torch.from_numpy(x), torch.from_numpy(y).float()


def forget(folder: Path) -> None:
    """Ask the system to drop a folder's files from its memory."""
    for path in folder.rglob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def speed(load: Callable[[list[int]], object], numbers: Sequence[int]) -> dict[str, float]:
    """Slices per second by the clock, and per second of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    for start in range(0, len(numbers), BATCH_SIZE):
        load(list(numbers[start : start + BATCH_SIZE]))
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    return {"slices per second": len(numbers) / seconds, "per second of the processor": len(numbers) / processor}


def measure(source: Cache, patients: int, repeats: int, baseline_slices: int) -> pd.DataFrame:
    """A row for each way."""
    with tempfile.TemporaryDirectory(dir=source.folder.absolute().parent) as beside:
        folder = copy_cache(source, patients, Path(beside) / "cache")
        npz = write_npz(Cache(folder), Path(beside) / "npz")
        runs = []
        for repeat in range(repeats):
            order = np.random.default_rng(repeat).permutation(len(npz)).tolist()
            few = order[:baseline_slices]
            runs.append({"way": "npz", **speed(lambda numbers: load_npz([npz[number] for number in numbers]), few)})
            forget(folder)
            dataset = SliceDataset(Cache(folder), None, IMAGE_SIZE)
            runs.append({"way": "cache (first epoch)", **speed(dataset.__getitems__, order)})
            runs.append({"way": "cache", **speed(dataset.__getitems__, order)})
            del dataset  # what is mapped into memory isn't forgotten
        table = pd.DataFrame(runs).groupby("way", sort=False).median()
    for column in list(table):
        table[f"times npz ({column})"] = table[column] / table.loc["npz", column]
    return table.assign(slices=len(npz), threads=torch.get_num_threads(), load=round(os.getloadavg()[0], 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Time the loading of slices.")
    parser.add_argument("cache", type=Path, help="a cache of data_scripts/preprocess.py")
    parser.add_argument("--patients", type=int, default=8, help="how many of its patients to take (default: 8)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each kind; the median counts (default: 5)")
    parser.add_argument("--baseline-slices", type=int, default=160, help="slices of a baseline's epoch (default: 160)")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    arguments = parser.parse_args(argv)
    if min(arguments.patients, arguments.repeats, arguments.baseline_slices) < 1:
        parser.error("--patients, --repeats and --baseline-slices are 1 or more")
    try:
        table = measure(Cache(arguments.cache), arguments.patients, arguments.repeats, arguments.baseline_slices)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(table.round(2).T.to_string())
    if arguments.out:
        with replacing(arguments.out) as beside:
            table.to_csv(beside)
    return 0


if __name__ == "__main__":
    sys.exit(main())
