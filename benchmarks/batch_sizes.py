"""What does the batch size change? python benchmarks/batch_sizes.py [--seeds 0 1 2] [--record]

Trains with batches of 6, 16 and 25 slices on the same phantom patients and validates after each epoch. What else is
equal is the question, so it's asked in several ways:

- budget "samples": epochs and slices are equal, and the more updates a small batch makes are part of the comparison;
- budget "updates": as many updates as batch size 16 makes, and a large batch sees more slices;
- rate "fixed": the recipe's learning rate and schedule for all; rate "scaled": in proportion to the batch size;
- rate "paper": 1e-4 throughout, as EMCAD's published training had it, with the budget "samples".

A training that is done is kept in --work, so that an interrupted run goes on where it stopped; two processes may share
the folder if they take different seeds. With --record, figures/recorded/ gets all histories (batch_sizes.csv, a row for
each epoch of each training) and all ledgers (batch_sizes.json).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from emcad_lib.files import CourseError, replacing, write_json
from emcad_lib.profiles import PROFILES
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import Ledger

sys.path.insert(0, str(Path(__file__).parent))
from phantom_ablation import COMPLETE, phantom_cache
from real_patients import RECORDED

TABLE, LEDGERS = RECORDED / "batch_sizes.csv", RECORDED / "batch_sizes.json"
BATCH_SIZES = PROFILES["paper"].batch_sizes
MIDDLE = 16  # the others are compared with it
SLICES = 1200  # of an epoch: a multiple of all batch sizes
SETTINGS = {"image_size": 96, "epochs": 4}
PAPER_RATE = 1e-4  # Rahman et al. 2024 (arXiv 2405.06880)
WAYS = [("samples", "fixed"), ("samples", "scaled"), ("updates", "fixed"), ("updates", "scaled"), ("samples", "paper")]


def configuration(budget: str, rate: str, batch_size: int, seed: int, work: Path, cache: Path) -> TrainConfig:
    """The settings of one training. Trainings that are the same in two ways have the same name."""
    slices = SLICES * batch_size // MIDDLE if budget == "updates" else SLICES
    learning_rate = PROFILES["quick"].learning_rate
    if rate == "scaled":
        learning_rate *= batch_size / MIDDLE
    elif rate == "paper":
        learning_rate = PAPER_RATE
    name = f"batch{batch_size}-slices{slices}-rate{learning_rate:g}-seed{seed}"
    schedule = "constant" if rate == "paper" else "cosine"
    return TrainConfig(
        cache, work / "runs", name, batch_size=batch_size, seed=seed, slices_per_epoch=slices,
        learning_rate=learning_rate, schedule=schedule, **SETTINGS,
    )  # fmt: skip


def trainings(seeds: Sequence[int], work: Path) -> Iterator[tuple[dict[str, Any], Ledger]]:
    """Each way, batch size and seed with the ledger of its training."""
    cache = phantom_cache(COMPLETE, work)
    for seed in seeds:
        for budget, rate in WAYS:
            for batch_size in BATCH_SIZES:
                ledger = train(configuration(budget, rate, batch_size, seed, work, cache))
                yield {"budget": budget, "rate": rate, "batch_size": batch_size, "seed": seed}, ledger


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Train with several batch sizes, at equal effort of several kinds.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one round each (default: 0 1 2)")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"), help="folder for what is made on the way")
    parser.add_argument("--record", action="store_true", help="write the histories to figures/recorded/")
    arguments = parser.parse_args(argv)
    histories, ledgers = [], {}
    try:
        for way, ledger in trainings(arguments.seeds, arguments.work):
            histories.append(ledger.history.drop(columns=["learning_rate"]).assign(**way, run=ledger.name))
            ledgers[ledger.name] = ledger.run
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    table = pd.concat(histories, ignore_index=True)
    last = table.groupby(["budget", "rate", "batch_size", "seed"], sort=False).last()
    print(last[["updates", "samples", "train_loss", "val_loss", "dice_patient"]].round(3).to_string())
    if arguments.record:
        with replacing(TABLE) as beside:
            table.to_csv(beside, index=False, float_format="%.5g")
        write_json(LEDGERS, ledgers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
