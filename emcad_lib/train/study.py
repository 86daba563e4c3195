"""The experiment of the course: the same training with batches of 6, 16 and 25 slices, side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from emcad_lib.data.slices import Cache
from emcad_lib.evaluate.metrics import DEFINITIONS
from emcad_lib.profiles import Profile
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import Ledger, code_hash


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


def summarise(ledgers: Mapping[int, Ledger]) -> pd.DataFrame:
    """The study's table, a row per batch size, with the columns

    - ``batch_size``; ``epochs``, ``updates``, ``samples`` and ``seconds`` of the whole run;
    - ``best_NAME`` and ``mean_NAME`` for each definition of Dice: its maximum and its mean over the epochs;
    - ``seconds_to_90``, for the speed of convergence: the training time after which Dice per patient first reached 90%
      of its maximum;
    - ``val_loss_rise``, for stability: by how much an epoch raised the validation loss on average, falls counted as 0.
    """
    rows = []
    for size, ledger in ledgers.items():
        history = ledger.history
        row: dict[str, float] = {"batch_size": size, "epochs": len(history)}
        row |= {name: history[name].iloc[-1] for name in ("updates", "samples", "seconds")}
        for name in DEFINITIONS:
            row |= {f"best_{name}": history[f"dice_{name}"].max(), f"mean_{name}": history[f"dice_{name}"].mean()}
        reached = history["dice_patient"] >= 0.9 * history["dice_patient"].max()
        row["seconds_to_90"] = history["seconds"][reached].iloc[0]
        row["val_loss_rise"] = history["val_loss"].diff().clip(lower=0).mean()
        rows.append(row)
    return pd.DataFrame(rows)
