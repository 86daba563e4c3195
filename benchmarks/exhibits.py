"""What do two slips of the published training do to a curve? python benchmarks/exhibits.py [--seeds 0 1 2] [--record]

The published loop calls train() once, before its first epoch, and eval() at the first validation. It never calls
train() again, so that from the second epoch on it trains in evaluation mode. And it keeps the checkpoint with the
highest score on the test set.

Both are shown here in miniature. The quick profile's recipe is trained as the course does ("sound"), and with the
first slip ("stuck"), on the same phantom patients and from the same seeds. After each epoch, 16 other phantom patients
are scored by 3D Dice. No training sees them, so that they can play both parts of the second slip: the test patients by
which somebody chooses an epoch, and the new patients by which the choice is judged.

A training that is done is kept in --work, so that an interrupted run goes on where it stopped. Once the patients in it
are made, several processes may share the folder, if they take different seeds. With --record, figures/recorded/ gets a
row for each epoch of each training (exhibits.csv) and what each was trained with (exhibits.json). Notebook 11 draws
them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from emcad_lib.data.slices import Cache
from emcad_lib.files import CourseError, read_json, replacing, write_json
from emcad_lib.lesson import RECORDED
from emcad_lib.model.weights import load_weights
from emcad_lib.train.checkpoint import LAST_FILE, save_checkpoint
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train_one_epoch, validate
from emcad_lib.train.ledger import describe_environment
from emcad_lib.train.run import Run, prepare_run, split_patients

sys.path.insert(0, str(Path(__file__).parent))
import beyond

TABLE, RUNS = RECORDED / "exhibits.csv", RECORDED / "exhibits.json"
SOUND, STUCK = "sound", "stuck"
CURVES = ["train_loss", "val_loss", "dice_patient"]  # of the training and the validation patients


def configuration(exhibit: str, seed: int, work: Path, cache: Path) -> TrainConfig:
    """The settings of one training. Those of a slip are no others: it lies in the loop."""
    return replace(beyond.configuration("", beyond.BASELINE, seed, work, cache), name=f"{exhibit}-seed{seed}")


def begin(config: TrainConfig, exhibit: str) -> Run:
    """A run before its first epoch."""
    run = prepare_run(config)
    if exhibit == STUCK:
        run.start_training()  # once; and what the loop calls before each epoch does nothing from here on
        run.start_training = lambda: None
    return run


def epochs(run: Run, held_out: Cache) -> pd.DataFrame:
    """Train to the end. Losses and validation score after each epoch, and Dice of each held-out patient."""
    rows = []
    for epoch in range(1, run.config.epochs + 1):
        row = {"epoch": epoch, **train_one_epoch(run, epoch), **validate(run)}
        save_checkpoint(run, LAST_FILE, row)
        model = load_weights(run.config.folder / LAST_FILE)  # another network, so that the run's keeps its mode
        found = {
            name: beyond.score(beyond.probabilities(model, held_out, name), held_out, name)
            for name in beyond.patients(held_out)
        }
        rows.append({"epoch": epoch, **{name: row[name] for name in CURVES}, **found})
    return pd.DataFrame(rows)


def training(exhibit: str, seed: int, work: Path, cache: Path, held_out: Cache) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of one training and what it was trained with, both kept in its folder."""
    config = configuration(exhibit, seed, work, cache)
    table, about = config.folder / "epochs.csv", config.folder / "run.json"
    if not table.exists():
        run = begin(config, exhibit)
        data = {"manifest_sha256": Cache(cache).hash, **split_patients(config, Cache(cache))}
        scored = {"manifest_sha256": held_out.hash, "patients": beyond.patients(held_out)}
        found = epochs(run, held_out)
        environment = describe_environment(run.accelerator.device)
        write_json(about, {"config": config.settings(), "data": data, "scored": scored, **environment})
        with replacing(table) as beside:  # last: a folder that holds it is done
            found.to_csv(beside, index=False, float_format="%.5g")
    return pd.read_csv(table), read_json(about)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Train soundly, and in evaluation mode from the second epoch on.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one round each (default: 0 1 2)")
    parser.add_argument("--work", type=Path, default=Path("runs/exhibits"), help="folder for what is made on the way")
    parser.add_argument("--record", action="store_true", help="write the tables to figures/recorded/")
    arguments = parser.parse_args(argv)
    tables, runs = [], {}
    try:
        cache, held_out = beyond.prepare(arguments.work)
        for seed in arguments.seeds:
            for exhibit in (SOUND, STUCK):
                found, about = training(exhibit, seed, arguments.work, cache, held_out)
                last = found[beyond.patients(held_out)].mean(axis=1).iloc[-1]
                print(f"{exhibit}, seed {seed}: Dice after the last epoch {last:.3f}", flush=True)
                found.insert(0, "exhibit", exhibit)
                found.insert(1, "seed", seed)
                tables.append(found)
                runs[f"{exhibit}-seed{seed}"] = about
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.record:
        with replacing(TABLE) as beside:
            pd.concat(tables, ignore_index=True).to_csv(beside, index=False, float_format="%.5g")
        write_json(RUNS, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
