"""How much disk, memory and time does so much data take? python benchmarks/sizing.py [--real DIR] [--record]

The first rows are measured, here and now: phantom patients (8, 32 and 128 of them) are prepared and trained on
through the command lines, as a user would, start of the programs included. They show what grows with the data, and
how. Times are seconds of all cores together, divided by the number of cores: what a machine with nothing else to do
would take at best, and nearly the same when it's busy. By the clock a quick, idle machine takes a little longer. The
other rows are calculated for BraTS 2020 (369 patients), BraTS 2021 (1,251) and 10,000 patients:

- Disk and slices: so many times the mean patient of --real (by default the folder that EMCAD_BRATS_DIR names),
  compressed as .nii.gz; without one, of the phantoms. Real patients are prepared in a temporary folder and leave
  numbers only.
- Preparing: the seconds that each further phantom took, between the fewest and the most of them, with a worker per
  core. Memory: of the largest process.
- An epoch: every slice with brain of the patients that the split gives to training, once, at 224 px; B0, batch size
  16. Validation comes on top.
- On this machine: at the speed of a measured training, 24 updates less 4, so that the start falls out.
- On a GPU, calculated and NOT measured, for there was none. Seconds per slice are the larger of arithmetic and memory
  traffic, plus loading. Arithmetic: multiply-adds x 2 operations x 3, as the backward pass is twice the forward pass,
  at 30% of the card's peak in 32 bits, because depthwise convolutions use no tensor cores. Memory traffic: 6 times
  what is kept for the backward pass in mixed precision (written, read by the next block, read again in the backward
  pass, and as much for gradients), at 70% of the card's bandwidth. Loading: at the speed of one core here, and not
  divided among cards, because each card's process loads every slice (see emcad_lib/train/run.py). It's assumed that a
  card's batch is large enough (64 slices, say) to hide the launch of kernels, that cards exchange their gradients
  meanwhile, and that the disk keeps up. These are guesses of size: a factor of two either way would be no surprise.

Memory is the programs' own. Pages of files, which the system takes back when it needs them, aren't counted (where the
system tells them apart: Linux). GB are 1e9 bytes. The phantoms are kept in --work, caches and runs aren't. Takes ten
minutes on two cores, and five more to make the phantoms. Prints the table; with --record it's written to
figures/recorded/.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from emcad_lib.data.brats import find_patients
from emcad_lib.data.slices import Cache, SliceDataset
from emcad_lib.data.split import split_patients
from emcad_lib.files import replacing
from emcad_lib.model.pvt_emcad import create_model
from emcad_lib.model.trace import trace
from emcad_lib.train.memory import footprint

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "figures" / "recorded" / "sizing.csv"
COUNTS = (8, 32, 128)  # phantoms
DATASETS = {"BraTS 2020": 369, "BraTS 2021": 1251, "ten thousand": 10_000}
ENCODER, IMAGE_SIZE, BATCH_SIZE = "pvt_v2_b0", 224, 16
FEW_UPDATES, MANY_UPDATES = 4, 24
CORES = os.cpu_count() or 1
OFTEN = 0.05  # seconds between two looks at a program's memory


@dataclass(frozen=True)
class Card:
    """A GPU by its maker's data sheet: operations per second in 32 bits, and bytes per second of its memory."""

    operations: float
    bandwidth: float
    cards: int = 1


CARDS = {"t4": Card(8.1e12, 320e9), "8_a100": Card(19.5e12, 1555e9, cards=8)}  # NVIDIA T4; A100 with 40 GB
PEAK_SHARE, BANDWIDTH_SHARE, TRAFFIC = 0.3, 0.7, 6


@dataclass(frozen=True)
class Watched:
    """What a command took: seconds by the clock, seconds of all cores together, and memory of its largest process."""

    seconds: float
    core_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Preparation:
    """What preparing some patients took. Bytes and slices are sums."""

    patients: int
    raw_bytes: int
    cache_bytes: int
    slices: int
    train_slices: int
    took: Watched


def watch(command: Sequence[str]) -> Watched:
    """Run a command and look often at its processes."""
    began, most, core_seconds = time.perf_counter(), 0, dict[int, float]()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                for member in (parent := psutil.Process(process.pid), *parent.children(recursive=True)):
                    memory, times = member.memory_info(), member.cpu_times()
                    most = max(most, memory.rss - getattr(memory, "shared", 0))
                    core_seconds[member.pid] = times.user + times.system
            except psutil.Error:
                pass  # it ended between two lines
            time.sleep(OFTEN)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode(errors="replace"))
    return Watched(seconds, sum(core_seconds.values()), most)


def prepare(data_dir: Path, cache_dir: Path, limit: int | None = None) -> Preparation:
    """Prepare the first ``limit`` patients of a folder into a new cache, with a worker per core."""
    script = ROOT / "data_scripts" / "preprocess.py"
    command = [sys.executable, str(script), str(data_dir), "--out", str(cache_dir), "--workers", str(CORES)]
    took = watch([*command, *(["--limit", str(limit)] if limit else [])])
    patients = find_patients(data_dir, need_segmentation=True)[0][:limit]
    files = [path for patient in patients for path in (*patient.images.values(), patient.segmentation) if path]
    cache = Cache(cache_dir)
    slices = {name: len(cache.regions(name)) for name in cache.names()}
    return Preparation(
        patients=len(slices),
        raw_bytes=sum(file.stat().st_size for file in files),
        cache_bytes=sum(file.stat().st_size for file in cache_dir.rglob("*") if file.is_file()),
        slices=sum(slices.values()),
        train_slices=sum(slices[name] for name in cache.names("train")),
        took=took,
    )


def train(cache: Path, updates: int, batch_size: int = BATCH_SIZE, image_size: int = IMAGE_SIZE) -> Watched:
    """Train for some updates, and validate one patient."""
    with tempfile.TemporaryDirectory() as runs:
        settings = {
            "cache": cache, "runs": runs, "name": "sizing", "encoder": ENCODER, "image-size": image_size, "epochs": 1,
            "batch-size": batch_size, "slices-per-epoch": updates * batch_size, "validate-patients": 1,
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return watch([sys.executable, "-m", "emcad_lib.train", *options])


def slices_per_second(few: Watched, many: Watched) -> float:
    """On all cores of an idle machine, from trainings of 4 and of 24 updates: start and validation fall out."""
    slices = (MANY_UPDATES - FEW_UPDATES) * BATCH_SIZE
    return slices / (many.core_seconds - few.core_seconds) * CORES


def loading_seconds(cache: Path, image_size: int = IMAGE_SIZE, slices: int = 640) -> float:
    """Seconds that one core takes to load a slice as the training does: in batches, in random order."""
    dataset = SliceDataset(Cache(cache), None, image_size)
    numbers = np.random.default_rng(0).integers(len(dataset), size=(max(slices // BATCH_SIZE, 1), BATCH_SIZE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        began = time.process_time()
        for batch in numbers:
            dataset.__getitems__(batch.tolist())
        return (time.process_time() - began) / numbers.size
    finally:
        torch.set_num_threads(threads)


def slice_costs() -> tuple[float, float]:
    """Multiply-adds of a slice's forward pass, and bytes that it keeps for the backward pass in mixed precision."""
    model = create_model(ENCODER)
    multiply_adds = trace(model, torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)).loc["sum", "multiply-adds"]
    return float(multiply_adds), float(footprint(model, IMAGE_SIZE, mixed_precision=True).per_slice)


def seconds_per_slice(card: Card, multiply_adds: float, kept_bytes: float, loading: float) -> float:
    """What a slice's share of an epoch takes on so many cards: see the top of this file for what is assumed."""
    arithmetic = 3 * 2 * multiply_adds / (card.operations * PEAK_SHARE)
    traffic = TRAFFIC * kept_bytes / (card.bandwidth * BANDWIDTH_SHARE)
    return max(arithmetic, traffic) / card.cards + loading


def measured_rows(
    preparations: Sequence[Preparation], trainings: Sequence[Watched], speed: float
) -> list[dict[str, Any]]:
    """A row for each number of phantoms. Its notes say how many times the first row it is."""
    first, rows = preparations[0], []
    for done, trained in zip(preparations, trainings, strict=True):
        times = {
            "patients": done.patients / first.patients,
            "raw": done.raw_bytes / first.raw_bytes,
            "cache": done.cache_bytes / first.cache_bytes,
            "hours of preparing": done.took.core_seconds / first.took.core_seconds,
            "memory of a worker": done.took.peak_bytes / first.took.peak_bytes,
            "memory of the training": trained.peak_bytes / trainings[0].peak_bytes,
        }
        got = done.took.core_seconds / done.took.seconds / CORES
        rows.append(
            {
                "data": "phantoms",
                "patients": done.patients,
                "how": "measured",
                "raw_gb": done.raw_bytes / 1e9,
                "cache_gb": done.cache_bytes / 1e9,
                "preprocess_hours": done.took.core_seconds / CORES / 3600,
                "preprocess_gb_per_worker": done.took.peak_bytes / 1e9,
                "train_slices": done.train_slices,
                "train_gb": trained.peak_bytes / 1e9,
                "epoch_hours_here": done.train_slices / speed / 3600,
                "notes": "times the first row: "
                + ", ".join(f"{name} {value:.2f}" for name, value in times.items())
                + f"; preparing took {done.took.seconds:.0f} s by the clock, with {got:.0%} of the machine",
            }
        )
    return rows


def calculated_rows(
    phantoms: Sequence[Preparation],
    real: Preparation | None,
    trainings: Sequence[Watched],
    speed: float,
    costs: tuple[float, float],
    loading: float,
) -> list[dict[str, Any]]:
    """A row for each of DATASETS."""
    typical = real or phantoms[-1]
    few, many = phantoms[0], phantoms[-1]
    # The start of the programs falls out.
    each = (many.took.core_seconds - few.took.core_seconds) / (many.patients - few.patients) / CORES
    notes = (
        f"disk and slices of {typical.patients} {'real patients' if real else 'phantoms'} "
        f"({typical.slices / typical.patients:.1f} slices each); preparing {each:.2f} s per patient; "
        f"here {speed:.2f} slices/s on {CORES} cores; {costs[0] / 1e9:.3f} G multiply-adds and "
        f"{costs[1] / 1e6:.1f} MB kept per slice; loading {1000 * loading:.2f} ms per slice and core; "
        "GPUs by calculation, not measured"
    )
    rows = []
    for name, patients in DATASETS.items():
        split = split_patients([f"Patient_{number:05d}" for number in range(patients)])
        to_train = sum(part == "train" for part in split.values())
        train_slices = round(to_train * typical.slices / typical.patients)
        rows.append(
            {
                "data": name,
                "patients": patients,
                "how": "calculated",
                "raw_gb": patients * typical.raw_bytes / typical.patients / 1e9,
                "cache_gb": patients * typical.cache_bytes / typical.patients / 1e9,
                "preprocess_hours": patients * each / 3600,
                "preprocess_gb_per_worker": max(done.took.peak_bytes for done in (*phantoms, typical)) / 1e9,
                "train_slices": train_slices,
                "train_gb": max(trained.peak_bytes for trained in trainings) / 1e9,
                "epoch_hours_here": train_slices / speed / 3600,
                **{
                    f"epoch_hours_{card}": train_slices * seconds_per_slice(sheet, *costs, loading) / 3600
                    for card, sheet in CARDS.items()
                },
                "notes": notes,
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Measure and calculate what so much data takes.")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="phantoms, one run for each")
    parser.add_argument("--real", default=os.environ.get("EMCAD_BRATS_DIR", ""), help="a folder of real patients")
    parser.add_argument("--work", type=Path, default=Path("runs/sizing"), help="folder for what is made on the way")
    parser.add_argument("--record", action="store_true", help="write the table to figures/recorded/")
    arguments = parser.parse_args(argv)
    counts = sorted(set(arguments.counts))
    if len(counts) < 2:
        parser.error("--counts needs two numbers: growth is a difference")
    phantoms = arguments.work.absolute() / "phantoms"
    making = [sys.executable, str(ROOT / "data_scripts" / "make_phantom.py"), "--out", str(phantoms)]
    subprocess.run([*making, "--patients", str(counts[-1])], check=True)
    preparations, trainings = [], []
    for count in counts:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            cache = Path(folder).absolute()
            preparations.append(prepare(phantoms, cache, count))
            trainings.append(train(cache, FEW_UPDATES))
            if count == counts[-1]:
                speed = slices_per_second(trainings[-1], train(cache, MANY_UPDATES))
                loading = loading_seconds(cache)
    real = None
    if arguments.real:
        with tempfile.TemporaryDirectory() as folder:
            real = prepare(Path(arguments.real).absolute(), Path(folder))
        print(f"{real.patients} real patients took {real.took.core_seconds / CORES:.1f} s, start included.")
    rows = measured_rows(preparations, trainings, speed)
    rows += calculated_rows(preparations, real, trainings, speed, slice_costs(), loading)
    table = pd.DataFrame(rows)
    table = table[[*(name for name in table if name != "notes"), "notes"]]
    with pd.option_context("display.float_format", "{:.3f}".format):
        print(table.drop(columns="notes").to_string(index=False, na_rep=""))
    print(*table["notes"].unique(), sep="\n")
    if arguments.record:
        with replacing(TABLE) as beside:
            table.round(4).to_csv(beside, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
