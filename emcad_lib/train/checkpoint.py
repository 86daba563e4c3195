"""What a run keeps so that it can go on: everything that the next epoch needs, in one file.

The state is the truth. It's written in one piece at the end of each epoch, before the weights of the last epoch and
before history.csv, which a resumed run writes again from it. So a process may die at any moment: the run goes on from
the last whole epoch, and what it had done of the next one is done again, in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from emcad_lib.files import CourseError, replacing
from emcad_lib.model.weights import save_weights
from emcad_lib.train.ledger import STATE_FILE
from emcad_lib.train.run import Run

BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, text, and lists and dictionaries of them.

    Raises:
        CourseError: when the disk is full. The state of the epoch before is still there.
    """
    with replacing(folder / STATE_FILE) as beside:
        torch.save(state, beside)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read the state of a run; None when its first epoch was not finished.

    Raises:
        CourseError: when the file can't be read, or holds anything but plain tensors and numbers.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # refuses whatever could run code
    except Exception as error:
        raise CourseError(
            f"{path}: the state of this run can't be read ({error}). Its weights and history are untouched; start "
            f"again under another --name."
        ) from error


def save_epoch(run: Run, rows: list[dict[str, float]], best: float, seconds: float, is_best: bool) -> None:
    """Write what an epoch leaves: the best weights if it's the best one, the state, and the last weights.

    Raises:
        CourseError: when the disk is full. The state of the epoch before is still there.
    """
    if is_best:
        save_checkpoint(run, BEST_FILE, rows[-1])
    save_state(run.config.folder, capture(run, rows, best, seconds))
    save_checkpoint(run, LAST_FILE, rows[-1])


def capture(run: Run, rows: list[dict[str, float]], best: float, seconds: float) -> dict[str, Any]:
    """The state after an epoch: all that the next one depends on.

    No random numbers' state is among it, because each epoch draws its own from (seed, epoch).
    """
    scaler = run.accelerator.scaler  # of fp16 only
    return {
        "epoch": len(rows),
        "history": rows,
        "best": best,
        "seconds": seconds,
        "model": run.network.state_dict(),
        "average": None if run.average is None else run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
    }


def restore(run: Run, state: dict[str, Any]) -> tuple[list[dict[str, float]], float, float]:
    """Put the run where ``state`` was captured, and return its history, best score and seconds."""
    run.network.load_state_dict(state["model"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    for group, ours in zip(state["optimizer"]["param_groups"], run.optimizer.param_groups, strict=True):
        group["fused"] = ours["fused"]  # a matter of the machine, and unknown to older runs
    run.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] is not None and run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    rows: list[dict[str, float]] = state["history"]
    if rows and run.accelerator.is_main_process:
        save_checkpoint(run, LAST_FILE, rows[-1])
    return rows, state["best"], state["seconds"]


def save_checkpoint(run: Run, file: str, row: Mapping[str, float]) -> None:
    """Write the network's weights into the run's folder, with all that `load_weights` needs to build it again."""
    config = run.config
    save_weights(
        run.predictor,
        config.folder / file,
        modalities=json.dumps(config.modalities),
        regions=json.dumps(config.regions),
        image_size=str(config.image_size),
        planes=json.dumps(config.planes),
        neighbours=str(config.neighbours),
        run=config.name,
        epoch=str(row["epoch"]),
        dice_patient=f"{row['dice_patient']:.4f}",
    )
