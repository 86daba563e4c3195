"""The ledger: what was run, on what, with what, and what came out. Curves are drawn from ledgers only.

A run's folder holds two files for people. ``run.json`` says what was run: settings, patients, versions, and the hashes
of data and code, so that two runs can be told apart or found equal. ``history.csv`` has a row per epoch. Neither holds
a path of the machine it ran on. A folder with these two files alone, as kept in figures/recorded, reads just as well.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import emcad_lib
from emcad_lib.files import CourseError, read_json, replacing, sha256, write_json
from emcad_lib.train.config import TrainConfig

RUN_FILE = "run.json"
HISTORY_FILE = "history.csv"
STATE_FILE = "last_state.pt"  # what `checkpoint` keeps to go on from

HISTORY = {
    "epoch": "epochs done",
    "updates": "steps of the optimiser since the start",
    "samples": "training slices seen since the start, repeated ones counted again",
    "seconds": "time spent training since the start, without validation",
    "train_loss": "mean of the training loss (the 15 terms of MUTATION, added) over the epoch's slices",
    "val_loss": "mean over the validation slices of one segmentation loss, of the prediction p1",
    "dice_slice_empty0": "mean Dice of the validation slices; a correct empty slice counts 0",
    "dice_slice_empty1": "mean Dice of the validation slices; a correct empty slice counts 1",
    "dice_slice_tumour": "mean Dice of the validation slices with tumour",
    "dice_slice_published": "mean Dice of the validation slices as the published EMCAD code counts",
    "dice_patient": "mean 3D Dice of the validation patients; the best epoch is chosen by it",
    "learning_rate": "at the end of the epoch",
    "images_per_second": "training slices per second in this epoch, without validation",
}
COUNTS = ("epoch", "updates", "samples")
ROOMS = ("data", "model", "evaluate", "train")  # whose code shapes a run


class Ledger:
    """One run's record.

    Attributes:
        folder: where it lies.
        run: the content of run.json.
        rows: the epochs so far, one mapping of `HISTORY` each.
    """

    def __init__(self, folder: str | Path, run: Mapping[str, Any], rows: Sequence[Mapping[str, float]] = ()) -> None:
        self.folder = Path(folder)
        self.run = dict(run)
        self.rows = [dict(row) for row in rows]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.run["config"]["name"])

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings, as `TrainConfig.settings` gives them."""
        return dict(self.run["config"])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return bool(self.run["finished"])

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch, with the columns of `HISTORY`."""
        return pd.DataFrame(self.rows, columns=list(HISTORY)).astype(dict.fromkeys(COUNTS, int))

    @property
    def best(self) -> dict[str, float]:
        """The epoch with the highest Dice per patient; the first of equals.

        Raises:
            CourseError: when no epoch is done yet.
        """
        if not self.rows:
            raise CourseError(f"{self.folder}: no epoch of this run is done yet. Train it on first, with --resume.")
        return max(self.rows, key=lambda row: row["dice_patient"])

    def begin(self, rows: Sequence[Mapping[str, float]] = ()) -> None:
        """Write down that a run starts, or goes on after the epochs ``rows``."""
        self.write_history(rows)
        self.write_run()  # last, because a folder with a run.json counts as a run

    def record(self, row: Mapping[str, float]) -> None:
        """Add an epoch."""
        self.write_history([*self.rows, dict(row)])

    def finish(self, seconds: float) -> None:
        """Write down that the run ended well, after ``seconds`` in all, validation included."""
        self.run |= {"finished": now(), "seconds": round(seconds, 2)}
        self.write_run()

    def write_run(self) -> None:
        """Write run.json."""
        write_json(self.folder / RUN_FILE, self.run)

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Make ``rows`` the history, and write history.csv."""
        self.rows = [dict(row) for row in rows]
        with replacing(self.folder / HISTORY_FILE) as beside:
            self.history.to_csv(beside, index=False)


def read_ledger(folder: str | Path) -> Ledger:
    """Read a run's ledger.

    Raises:
        CourseError: when the folder holds no run, or one that can't be read.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise CourseError(f"{folder}: there is no run here ({RUN_FILE} is missing). Give the folder of a training.")
    try:
        run = read_json(folder / RUN_FILE)
        history = pd.read_csv(folder / HISTORY_FILE)
        epochs = history[list(HISTORY)].itertuples(index=False)
        rows = [dict(zip(HISTORY, epoch, strict=True)) for epoch in epochs]
        return Ledger(folder, {"finished": None, **run, "config": dict(run["config"])}, rows)
    except (CourseError, OSError, ValueError, KeyError, TypeError) as error:
        again = "Bring both back from a copy, or train again under another --name."
        reason = error.__cause__ or error  # without the advice to delete the file, for a run is worth more than that
        raise CourseError(f"{folder}: {RUN_FILE} and {HISTORY_FILE} can't be read ({reason}). {again}") from error


def open_ledger(config: TrainConfig, data: Mapping[str, Any]) -> Ledger:
    """The ledger of the run that is to be resumed, or of a new one, which isn't written yet.

    Args:
        config: the settings asked for.
        data: what identifies the data: the hash of the cache's manifest, and the patients by split.

    Raises:
        CourseError: when the name is taken and the run isn't to be resumed, or had other settings or data. Its number
            of epochs may change, and the cache may have moved. Before its first epoch is done all may change, because
            then it begins anew.
    """
    settings, started_from = config.settings(), _hashes(config)
    run = {"config": settings, "data": dict(data), "started_from": started_from, "started": now()}
    new = Ledger(config.folder, {**run, "finished": None, "seconds": None, "resumed": []})
    if not is_run(config.folder):
        return new
    if not config.resume:
        raise CourseError(
            f"{config.folder}: there is a run of this name already. Go on with it by --resume, or take another --name."
        )
    ledger = read_ledger(config.folder)
    # A setting that is newer than the run: its default is what was done before there was a choice.
    before = TrainConfig("", "", config.name).settings() | ledger.config
    changed = [
        f"{name} was {before.get(name)}, is now {settings.get(name)}"
        for name in sorted((before.keys() | settings.keys()) - {"epochs", "cache"})
        if before.get(name) != settings.get(name)
    ]
    if ledger.run.get("data") != data:
        changed.append(f"{config.cache} holds other data, or another split of it")
    if ledger.run.get("started_from") != started_from:
        changed.append("the weights to start from are others")
    if changed and not ledger.rows and not (config.folder / STATE_FILE).exists():
        return new
    if changed:
        raise CourseError(
            f"{config.folder}: a run can't go on otherwise than it began: {'; '.join(changed)}. Take another "
            f"--name, or the settings of before."
        )
    ledger.run["config"] = settings | {"epochs": max(config.epochs, len(ledger.rows))}
    if config.epochs > before["epochs"]:
        ledger.run["finished"] = None
    return ledger


def _hashes(config: TrainConfig) -> dict[str, str]:
    """SHA-256 of the weights that a run starts from."""
    hashes = {}
    for name in ("weights", "encoder_weights"):
        if path := getattr(config, name):
            if not Path(path).is_file():
                option = "--" + name.replace("_", "-")
                raise CourseError(f"{path}: there is no such file of weights. Give {option} the path of one.")
            hashes[name] = sha256(path)
    return hashes


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return (Path(folder) / RUN_FILE).is_file()


def now() -> str:
    """The time, in UTC and to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """What a run depends on beside its settings and its data: code, versions and machine."""
    packages = ("torch", "timm", "numpy", "accelerate")
    return {
        "code": {"sha256": code_hash(), "commit": _commit()},
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
            "emcad_lib": emcad_lib.__version__,
        },
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": processes,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def code_hash() -> str:
    """SHA-256 over the library's code that shapes a run: names and contents of the files of `ROOMS`."""
    home = Path(emcad_lib.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(file for room in ROOMS for file in (home / room).rglob("*.py")):
        digest.update(f"{file.relative_to(home).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _commit() -> str:
    """The commit of the course's own repository; empty where there is none, such as in an installed package."""
    home = Path(emcad_lib.__file__).parents[1]
    if not (home / ".git").exists():
        return ""
    try:
        answer = subprocess.run(["git", "-C", str(home), "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:  # git isn't installed
        return ""
    return answer.stdout.strip()
