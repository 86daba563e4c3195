"""The experiment of the course: the same training with batches of 6, 16 and 25 slices, side by side."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emcad_lib.data.slices import Cache
from emcad_lib.evaluate.metrics import DEFINITIONS
from emcad_lib.profiles import Profile
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import Ledger, code_hash

LEVEL = 0.5  # of Dice per patient, for the speed of convergence: whoever stays above it has found the tumours
EFFORTS = ("updates", "samples", "seconds")


def batch_size_study(
    cache: str | Path, runs: str | Path, profile: Profile, seed: int = 0, show: bool = True, **settings: Any
) -> dict[int, Ledger]:
    """Train once per batch size of the profile: same patients, epochs, seed and learning rate.

    Call it as often as you like. A run that is done, with equal settings, data and code, is read instead of repeated;
    one that was interrupted goes on; and where anything has changed, a new run is made beside the old one.

    Args:
        cache: folder of the slice cache.
        runs: folder of all runs.
        profile: the sizes of the experiment.
        seed: of all three runs.
        show: whether to show progress bars.
        settings: other settings of `TrainConfig` to use in all three.

    Returns:
        batch size -> ledger.

    Raises:
        CourseError: as `train`.
    """
    return {
        size: train(study_config(cache, runs, profile, batch_size=size, seed=seed, **settings), show)
        for size in profile.batch_sizes
    }


def study_config(cache: str | Path, runs: str | Path, profile: Profile, **settings: Any) -> TrainConfig:
    """The settings of one run in a profile's sizes, under a name that changes with settings, data and code.

    The name ends in the first 8 digits of a hash of the three, such as "batch16-seed0-3fa4c2d1".

    Args:
        cache: folder of the slice cache.
        runs: folder of all runs.
        profile: the sizes.
        settings: what to set otherwise than the profile; ``name`` replaces the part before the hash.
    """
    chosen = {
        "encoder": profile.encoder,
        "epochs": profile.epochs,
        "image_size": profile.image_size,
        "slices_per_epoch": profile.slices_per_epoch,
        "learning_rate": profile.learning_rate,
        "pretrained": profile.pretrained,
        **settings,
    }
    config = TrainConfig(cache=cache, runs=runs, resume=True, **{"name": "unnamed", **chosen})
    name = settings.get("name", f"batch{config.batch_size}-seed{config.seed}")
    identity = {**config.settings(), "name": name, "cache": Cache(cache).hash, "code": code_hash()}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return replace(config, name=f"{name}-{digest[:8]}")


def recorded_runs(
    table: pd.DataFrame, budget: str = "samples", rate: str = "fixed", accumulate: int = 1
) -> dict[int, list[pd.DataFrame]]:
    """The histories of one way of training in figures/recorded/batch_sizes.csv, by batch size, one for each seed.

    Args:
        table: the recorded study, a row for each epoch of each run.
        budget: what the batch sizes have in common: samples or updates.
        rate: their learning rate: fixed, scaled or paper.
        accumulate: in how many parts a batch was computed.
    """
    chosen = table[(table["budget"] == budget) & (table["rate"] == rate) & (table["accumulate"] == accumulate)]
    return {
        int(size): [run.reset_index(drop=True) for _, run in chosen[chosen["batch_size"] == size].groupby("seed")]
        for size in sorted(chosen["batch_size"].unique())
    }


def settled(history: pd.DataFrame, effort: str = "samples", level: float = LEVEL) -> float:
    """Speed of convergence: the effort after which Dice per patient stays at ``level`` or above, to the run's end.

    Whoever only touches the level has not converged. Levels of one's own, such as 90% of the run's best, favour poor
    runs: these reach little soon.

    Args:
        history: a run's history.
        effort: the column to measure it by: epoch, updates, samples or seconds.
        level: of Dice per patient.

    Returns:
        The effort at the end of the first epoch of that last stretch; nan where the run ends below the level.
    """
    below = history["dice_patient"].lt(level).to_numpy().nonzero()[0]
    first = int(below[-1]) + 1 if len(below) else 0
    return float(history[effort].iloc[first]) if first < len(history) else math.nan


def instability(losses: Sequence[float] | pd.Series) -> float:
    """How much of its way down a loss takes back: the sum of its rises over the sum of its falls.

    0 for a loss that only falls, 1 for one that ends where it began. A loss that moves twice as far is no less stable.

    Args:
        losses: one for each epoch.

    Returns:
        0 or more; infinite for a loss that only rises, nan for one that doesn't move.
    """
    steps = np.diff(np.asarray(losses, dtype=np.float64))
    rises, falls = steps.clip(min=0).sum(), -steps.clip(max=0).sum()
    if falls == 0:
        return math.inf if rises else math.nan
    return float(rises / falls)


def summarise(ledgers: Mapping[int, Ledger]) -> pd.DataFrame:
    """The study's table, a row per batch size, with the columns of `describe`."""
    return pd.DataFrame([{"batch_size": size, **describe(ledger.history)} for size, ledger in ledgers.items()])


def describe(history: pd.DataFrame) -> dict[str, float]:
    """A run in numbers:

    - ``epochs``, ``updates``, ``samples`` and ``seconds`` of the whole run;
    - ``best_NAME``, ``mean_NAME`` and ``last_NAME`` for each definition of Dice: its maximum and its mean over the
      epochs, and its value at the end;
    - ``settled_updates``, ``settled_samples`` and ``settled_seconds``, for the speed of convergence: see `settled`;
    - ``last_val_loss``, and the ``instability`` of the validation loss: see `instability`.
    """
    row: dict[str, float] = {"epochs": len(history)}
    row |= {name: history[name].iloc[-1] for name in EFFORTS}
    for name in DEFINITIONS:
        dice = history[f"dice_{name}"]
        row |= {f"best_{name}": dice.max(), f"mean_{name}": dice.mean(), f"last_{name}": dice.iloc[-1]}
    row |= {f"settled_{effort}": settled(history, effort) for effort in EFFORTS}
    return row | {"last_val_loss": history["val_loss"].iloc[-1], "instability": instability(history["val_loss"])}
