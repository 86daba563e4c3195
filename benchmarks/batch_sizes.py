"""What does the batch size change? python benchmarks/batch_sizes.py [--seeds 0 1 2] [--record]

Trains with batches of 6, 16 and 25 slices as the quick profile does, on the same phantom patients, and validates after
each epoch. What else is equal is the question, so it's asked in several ways:

- budget "samples": epochs and slices are equal, and the more updates a small batch makes are part of the comparison;
- budget "updates": as many updates as batch size 16 makes, and a large batch sees more slices;
- rate "fixed": the recipe's learning rate and schedule for all; rate "scaled": in proportion to the batch size;
- rate "paper": 1e-4 throughout, as EMCAD's published training had it, with the budget "samples".

Beside them, a batch of 25 in five parts of 5 slices (``--accumulate 5``), where batch normalisation sees the parts.

A training that is done is kept in --work, so that an interrupted run goes on where it stopped. Once the patients in it
are made, several processes may share the folder, if they take different seeds. With --record, figures/recorded/ gets
all histories (batch_sizes.csv, a row for each epoch of each training) and all ledgers (batch_sizes.json). Notebooks 09
and 10 draw them, and train the first of these ways again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from emcad_lib.data.phantom import make_phantoms
from emcad_lib.data.preprocess import preprocess
from emcad_lib.files import CourseError, replacing, write_json
from emcad_lib.lesson import RECORDED
from emcad_lib.profiles import PROFILES
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import Ledger

TABLE, LEDGERS = RECORDED / "batch_sizes.csv", RECORDED / "batch_sizes.json"
QUICK = PROFILES["quick"]
BATCH_SIZES = PROFILES["paper"].batch_sizes
MIDDLE = 16  # the others are compared with it
PAPER_RATE = 1e-4  # Rahman et al. 2024 (arXiv 2405.06880)


class Way(NamedTuple):
    """One way to train with one batch size."""

    budget: str
    rate: str
    batch_size: int
    accumulate: int = 1


def ways() -> list[Way]:
    """All ways and batch sizes of the study."""
    asked = [
        ("samples", "fixed"), ("samples", "scaled"), ("updates", "fixed"), ("updates", "scaled"), ("samples", "paper"),
    ]  # fmt: skip
    in_parts = Way("samples", "fixed", BATCH_SIZES[-1], accumulate=5)
    return [*(Way(*way, size) for way in asked for size in BATCH_SIZES), in_parts]


def phantom_cache(work: Path) -> Path:
    """The slices of the quick profile's phantom patients, as a lesson prepares them."""
    make_phantoms(work / "patients", QUICK.patients)
    preprocess(work / "patients", work / "cache")
    return work / "cache"


def configuration(way: Way, seed: int, work: Path, cache: Path) -> TrainConfig:
    """The settings of one training. Trainings that are the same in two ways have the same name."""
    slices, learning_rate = QUICK.slices_per_epoch, QUICK.learning_rate
    if way.budget == "updates":
        slices = slices * way.batch_size // MIDDLE
    if way.rate == "scaled":
        learning_rate *= way.batch_size / MIDDLE
    elif way.rate == "paper":
        learning_rate = PAPER_RATE
    parts = f"in{way.accumulate}parts-" if way.accumulate > 1 else ""
    return TrainConfig(
        cache,
        work / "runs",
        f"batch{way.batch_size}-{parts}slices{slices}-rate{learning_rate:g}-seed{seed}",
        encoder=QUICK.encoder,
        batch_size=way.batch_size,
        accumulate=way.accumulate,
        seed=seed,
        epochs=QUICK.epochs,
        image_size=QUICK.image_size,
        slices_per_epoch=slices,
        learning_rate=learning_rate,
        schedule="constant" if way.rate == "paper" else "cosine",
        pretrained=QUICK.pretrained,
    )


def trainings(seeds: Sequence[int], work: Path) -> Iterator[tuple[Way, int, Ledger]]:
    """Each way and seed with the ledger of its training."""
    cache = phantom_cache(work)
    for seed in seeds:
        for way in ways():
            yield way, seed, train(configuration(way, seed, work, cache))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Train with several batch sizes, at equal effort of several kinds.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one round each (default: 0 1 2)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/batch_sizes"), help="folder for what is made on the way"
    )
    parser.add_argument("--record", action="store_true", help="write the histories to figures/recorded/")
    arguments = parser.parse_args(argv)
    histories, ledgers = [], {}
    try:
        for way, seed, ledger in trainings(arguments.seeds, arguments.work):
            histories.append(ledger.history.assign(**way._asdict(), seed=seed, run=ledger.name))
            ledgers[ledger.name] = ledger.run
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    table = pd.concat(histories, ignore_index=True)
    last = table.groupby([*Way._fields, "seed"], sort=False).last()
    print(last[["updates", "samples", "train_loss", "val_loss", "dice_patient"]].round(3).to_string())
    if arguments.record:
        with replacing(TABLE) as beside:
            table.to_csv(beside, index=False, float_format="%.5g")
        write_json(LEDGERS, ledgers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
