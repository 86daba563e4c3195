"""What are phantoms worth to somebody with a few real patients? python benchmarks/few_patients.py DIR [--record]

DIR is a folder of BraTS patients. Each of them is held out once. The network then trains on 1, 2, 4 or 8 of the others,
from random weights ("scratch") or from the reference weights, which know phantoms only ("phantom", "gentle"), and is
scored on the one held out, by 3D Dice of the whole tumour. With 0 patients the reference weights are used as they are.

All trainings see about as many slices, so those on fewer patients go through them more often. The network after the
last epoch is scored: no patient is there to choose an epoch by.
"scratch" has the rate of the quick profile, "phantom" a third of it, since it has little left to learn, and "gentle" a
tenth of that; none was tuned. Which others are trained on depends on --seed alone, and the 1 is among the 2, and so on.

A training that is done is kept in --work. With ``--part 1 2`` and ``--part 2 2``, two processes share the patients to
hold out, once a first one has prepared them; --starts trains from some of the starts only. With --record, which is for
ten patients that the project may not contain, figures/recorded/few_real_patients.csv gets a row for each score of these
starts, and few_real_patients.json each training's ledger: numbers, and no picture.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emcad_lib.data.cache import MANIFEST, Cache, patient_folder
from emcad_lib.data.labels import region_mask
from emcad_lib.data.preprocess import preprocess
from emcad_lib.evaluate.inference import predict
from emcad_lib.evaluate.metrics import dice
from emcad_lib.files import CourseError, read_json, replacing, write_json
from emcad_lib.lesson import RECORDED
from emcad_lib.model.weights import REFERENCE_WEIGHTS, load_weights
from emcad_lib.profiles import PROFILES
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import Ledger

TABLE, LEDGERS = RECORDED / "few_real_patients.csv", RECORDED / "few_real_patients.json"
COUNTS = (1, 2, 4, 8)
QUICK = PROFILES["quick"]
STARTS: dict[str, dict[str, Any]] = {
    "scratch": {"learning_rate": QUICK.learning_rate},
    "phantom": {"learning_rate": QUICK.learning_rate / 3, "weights": str(REFERENCE_WEIGHTS)},
    "gentle": {"learning_rate": QUICK.learning_rate / 30, "weights": str(REFERENCE_WEIGHTS)},
}
SLICES, SLICES_PER_EPOCH = 1600, 400


def others(names: Sequence[str], held_out: str, count: int, seed: int) -> list[str]:
    """The patients to train on: ``count`` of all but one, in an order that depends on the seed and on that one."""
    rest = [name for name in names if name != held_out]
    order = np.random.default_rng((seed, names.index(held_out))).permutation(len(rest))
    return [rest[place] for place in order[:count]]


def part_of(cache: Cache, trained: Sequence[str], held_out: str, folder: Path) -> Path:
    """A cache of these patients only, without copying their arrays: the one held out is its validation patient."""
    patients = {name: {**cache.manifest["patients"][name], "split": "train"} for name in trained}
    patients[held_out] = {**cache.manifest["patients"][held_out], "split": "val"}
    (folder / "patients").mkdir(parents=True, exist_ok=True)
    for name in patients:
        link = patient_folder(folder, name)
        if not link.is_symlink():
            os.symlink(patient_folder(cache.folder, name).resolve(), link)
    write_json(folder / MANIFEST, {**cache.manifest, "patients": patients})
    return folder


def epochs_for(slices: int) -> int:
    """How many epochs on so many slices, of which an epoch takes SLICES_PER_EPOCH at most."""
    return round(SLICES / min(slices, SLICES_PER_EPOCH))


def score(weights: Path | None, cache: Cache, name: str) -> float:
    """Dice of a patient's axial slices."""
    found = predict(load_weights(weights), cache.images(name))[:, 0] >= 0.5
    return dice(found, region_mask(cache.regions(name), "whole"))


def scores(
    cache: Cache, work: Path, counts: Sequence[int], starts: Sequence[str], seed: int, part: Sequence[int] = (1, 1)
) -> Iterator[tuple[dict[str, Any], Ledger | None]]:
    """A row for each patient of a part, number of patients to train on, and start; with the training's ledger."""
    names = cache.names()
    for held_out in names[part[0] - 1 :: part[1]]:
        if "phantom" in starts:
            zero = score(None, cache, held_out)
            yield {"held_out": held_out, "patients": 0, "start": "phantom", "seed": seed, "dice": zero}, None
        for count in counts:
            trained = others(names, held_out, count, seed)
            epochs = epochs_for(sum(len(cache.images(name)) for name in trained))
            for start in starts:
                name = f"{held_out}-{count}-{start}-seed{seed}"
                config = TrainConfig(
                    part_of(cache, trained, held_out, work / "caches" / f"{held_out}-{count}-seed{seed}"),
                    work / "runs",
                    name,
                    seed=seed,
                    epochs=epochs,
                    slices_per_epoch=SLICES_PER_EPOCH,
                    image_size=QUICK.image_size,
                    **STARTS[start],
                )
                ledger = train(config)
                found = score(ledger.folder / "last.safetensors", cache, held_out)
                row = {"held_out": held_out, "patients": count, "start": start, "seed": seed, "dice": found}
                yield row, ledger


def record(rows: Sequence[dict[str, Any]], ledgers: Sequence[Ledger | None]) -> None:
    """Write scores and ledgers; what's recorded of other starts and seeds stays."""
    table, runs = pd.DataFrame(rows), {ledger.name: ledger.run for ledger in ledgers if ledger}
    if TABLE.exists():
        before = pd.read_csv(TABLE)
        again = before["start"].isin(table["start"]) & before["seed"].isin(table["seed"])
        table = pd.concat([before[~again], table])
        runs = read_json(LEDGERS) | runs
    with replacing(TABLE) as beside:
        table.to_csv(beside, index=False, float_format="%.4f")
    write_json(LEDGERS, runs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Train on few patients, from phantom weights and from scratch.")
    parser.add_argument("folder", type=Path, help="a folder of BraTS patients with segmentations")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/few_patients"), help="folder for what is made on the way"
    )
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=list(STARTS), help="to train from")
    parser.add_argument("--part", type=int, nargs=2, default=[1, 1], metavar=("K", "N"), help="only the Kth of N parts")
    parser.add_argument("--record", action="store_true", help="write the table to figures/recorded/")
    arguments = parser.parse_args(argv)
    if arguments.record and arguments.part != [1, 1]:
        parser.error("--record needs all parts. Leave out --part: what is trained already is only read.")
    try:
        for problem in preprocess(arguments.folder, arguments.work / "cache").problems:
            print(problem, file=sys.stderr)
        cache = Cache(arguments.work / "cache")
        counts = [count for count in COUNTS if count < len(cache.names())]
        if not counts:
            raise CourseError(f"{arguments.folder}: two patients are needed, one to train on and one to score.")
        rows, ledgers = zip(
            *scores(cache, arguments.work, counts, arguments.starts, arguments.seed, arguments.part), strict=True
        )
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    table = pd.DataFrame(rows)
    print(table.groupby(["start", "patients"])["dice"].agg(["mean", "median", "min", "count"]).round(3).to_string())
    if arguments.record:
        record(rows, ledgers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
