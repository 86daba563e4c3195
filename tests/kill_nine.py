"""Kills training, preprocessing and the making of phantoms, twenty times each, and looks at what that leaves behind.

Not a test itself: test_survival.py in tests/train and tests/data run it as ``python tests/kill_nine.py WHAT FOLDER
SEED``, because each life is a process of its own, and those are forked here from one that has imported everything and
started no thread. What is written in one life is looked at after it, and goes on in the next.

A life ends in one of three ways:

- clock: SIGKILL, for the process and its workers, at a random time;
- rename: SIGKILL just before the Nth rename, when a file is complete under its temporary name;
- bytes: in the middle of a write after the Nth rename, by a limit on the size of files. The system ends the process at
  that very byte; no library, not even one in C++, gets to tidy up.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from emcad_lib.data import phantom
from emcad_lib.data.preprocess import preprocess
from emcad_lib.files import LEFTOVER_SECONDS, read_json, sha256
from emcad_lib.train.checkpoint import load_state
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import is_run, read_ledger

KILLS = 20
EPOCHS = 4
RUN_FILES = {"run.json", "history.csv", "best.safetensors", "last.safetensors", "last_state.pt"}


@dataclass
class Death:
    """When a life ends: after so many seconds, or at the Nth rename (counted from 0), there or so many bytes later."""

    kind: str
    seconds: float = 0.0
    rename: int = 0
    bytes: int = 0

    def lie_in_wait(self) -> None:
        """Called in the process that is to die."""
        if self.kind == "clock":
            return
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and would raise an error instead
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        renames = 0

        def now() -> None:
            if self.kind == "rename":
                os.kill(os.getpid(), signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.bytes, self.bytes))

        def count(event: str, _: tuple[Any, ...]) -> None:
            nonlocal renames
            if event == "os.rename":  # it's about to happen
                renames += 1
                if renames == self.rename + (self.kind == "rename"):
                    now()

        sys.addaudithook(count)
        if self.kind == "bytes" and self.rename == 0:
            now()


def live(work: Callable[[], Any], death: Death | None = None, begun: Callable[[], bool] = lambda: True) -> bool:
    """Let a new process do the work, and die; True if it died, False if it was through with its work before.

    The seconds of a death by the clock count from when ``begun`` is true.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)  # its workers belong to its group, and are killed with it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if death:
                death.lie_in_wait()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.setpgid(child, child)  # as above: whoever comes first
    ended = 0
    if death and death.kind == "clock":
        while not begun() and not ended:
            time.sleep(0.002)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            time.sleep(death.seconds)
            os.killpg(child, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(child, 0)
    # The workers of a life that came to its end would wait for more work, for five minutes, and the test for them.
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the work failed: see above ({death}, {status})"
    return os.WIFSIGNALED(status)


def draw(random: np.random.Generator, kind: str, seconds: float, renames: int, size: float) -> Death:
    """A death at a random moment of a life that takes so many seconds and renames, and writes files up to ``size``."""
    return Death(
        kind, random.uniform(0, seconds), int(random.integers(renames)), int(10 ** random.uniform(0, np.log10(size)))
    )


@dataclass
class Tally:
    """What happened: kills of each kind, half-written files that they left, and how often the work came to its end.

    ``lost`` counts the runs that had to come back from their mirror.
    """

    kills: Counter[str]
    halves: int = 0
    lost: int = 0
    ends: int = 0
    lives: int = 0

    def next(self, kinds: tuple[str, ...]) -> str | None:
        """The kind of death that is next in turn, or None when there were enough."""
        if self.kills.total() == KILLS:
            return None
        assert self.lives < 4 * KILLS, f"the work can't be killed: {self}"
        self.lives += 1
        return kinds[self.lives % len(kinds)]

    def add(self, death: Death, folder: Path, known: set[Path]) -> None:
        """Count a kill, and the half-written files and folders that it left in ``folder``."""
        self.kills[death.kind] += 1
        left = set(folder.rglob(".writing-*"))
        self.halves += bool(left - known)
        known |= left


def kill_training(folder: Path, random: np.random.Generator) -> Tally:
    """Training: whatever was killed goes on to the history and the weights of the run that was left alone.

    The run is mirrored, and after every third kill its folder is gone, as on Colab.
    """
    settings = {"batch_size": 2, "epochs": EPOCHS, "slices_per_epoch": 4, "image_size": 64, "resume": True}
    alone = TrainConfig(cache=folder / "cache", runs=folder / "alone", name="run", **settings)
    began = time.perf_counter()
    live(lambda: train(alone, show=False))
    seconds = time.perf_counter() - began
    tally = Tally(Counter())
    while kind := tally.next(("clock", "rename", "bytes")):
        place = folder / f"killed {tally.ends}"
        (place / "drive").mkdir(parents=True)
        config = replace(alone, runs=place / "runs", mirror=str(place / "drive" / "mirror"))
        mirrored = Path(config.mirror) / config.name
        known: set[Path] = set()
        restored = False
        while kind:
            death = draw(random, kind, seconds / 2, 18, 5e7)
            if not live(partial(train, config, show=False), death):
                break
            tally.add(death, place, known)
            look_at_run(config.folder, alone.folder, table_may_lag=restored)
            look_at_run(mirrored, alone.folder, table_may_lag=True)
            if tally.kills.total() % 3 == 0:
                tally.lost += is_run(mirrored)
                shutil.rmtree(config.folder, ignore_errors=True)
                restored = True
            kind = tally.next(("clock", "rename", "bytes"))
        else:
            live(partial(train, config, show=False))
        for run in (config.folder, mirrored):
            look_at_run(run, alone.folder, table_may_lag=False)
            assert read_ledger(run).finished
            assert len(read_ledger(run).rows) == EPOCHS
            assert {path.name for path in run.iterdir()} == RUN_FILES
        for name in ("best.safetensors", "last.safetensors"):
            ours, theirs = load_file(config.folder / name), load_file(alone.folder / name)
            assert all(torch.allclose(ours[key], theirs[key], rtol=0, atol=1e-6) for key in theirs), name
        tally.ends += 1
    return tally


def look_at_run(folder: Path, alone: Path, *, table_may_lag: bool) -> None:
    """Every file can be read, and what it says of the past is what the undisturbed run says.

    The state is written first, and holds the history from which a resumed run writes the table again: so the table may
    be an epoch behind. In a mirror, and in what is brought back from it, it may be more than that (``table_may_lag``):
    when copies of two epochs running were killed between the two files.
    """
    readers = {".json": read_json, ".csv": pd.read_csv, ".safetensors": load_file, ".pt": lambda _: load_state(folder)}
    for path in folder.glob("[!.]*"):
        readers[path.suffix](path)
    if is_run(folder):
        expected, found = read_ledger(alone).history, read_ledger(folder).history
        exact = [name for name in expected if name not in ("seconds", "images_per_second")]
        pd.testing.assert_frame_equal(found[exact], expected[exact][: len(found)], check_dtype=False, rtol=0, atol=1e-6)
        state = load_state(folder)
        done = state["epoch"] if state else 0
        assert (0 if table_may_lag else done - 1) <= len(found) <= done
        assert not state or len(state["history"]) == done


def kill_preprocessing(folder: Path, random: np.random.Generator) -> Tally:
    """Preprocessing in two worker processes (when killed by the clock) or in one process."""

    def work(place: Path, kind: str) -> Any:
        return preprocess(folder / "patients", place, workers=2 if kind == "clock" else 1)

    return kill_folders(folder, random, work, "patients", ("clock", "bytes", "clock", "rename"))


def kill_phantoms(folder: Path, random: np.random.Generator) -> Tally:
    """The making of phantoms in two threads: small ones of noise, because here only the writing matters."""

    def small(recipe: dict[str, Any]) -> phantom.Phantom:
        noise = np.random.default_rng(recipe["index"]).integers(0, 1000, (4, 32, 32, 24), dtype=np.int16)
        return phantom.Phantom(noise, (noise[0] > 900).astype(np.uint8), recipe)

    phantom.build_phantom = small

    def work(place: Path, kind: str) -> Any:
        return phantom.make_phantoms(place, 16, workers=2)

    return kill_folders(folder, random, work, "", ("clock", "rename", "bytes"))


def kill_folders(
    folder: Path, random: np.random.Generator, work: Callable[[Path, str], Any], below: str, kinds: tuple[str, ...]
) -> Tally:
    """Kill work that fills a folder with patients' folders, which lie ``below`` it."""
    live(lambda: work(folder / "alone", "rename"))
    alone = content(folder / "alone")
    began = time.perf_counter()
    live(lambda: work(folder / "timed", "rename"))
    seconds = time.perf_counter() - began
    assert content(folder / "timed") == alone
    tally = Tally(Counter())
    while kind := tally.next(kinds):
        place = folder / f"killed {tally.ends}"
        known: set[Path] = set()
        whole: dict[str, tuple[int, int]] = {}
        while kind:
            death = draw(random, kind, seconds / 8, 9, 1e5)
            # Its time counts from when there are some folders more, so that it dies at work, and not in its imports.
            before = len(list((place / below).glob("*")))
            begun = partial(has_more, place / below, before + int(random.integers(4)))
            if not live(partial(work, place, kind), death, begun):
                break
            tally.add(death, place, known)
            whole = look_at_folders(place, below, alone, whole)
            kind = tally.next(kinds)
        else:
            live(partial(work, place, "rename"))
        look_at_folders(place, below, alone, whole)
        long_ago = time.time() - 2 * LEFTOVER_SECONDS
        for leftover in place.rglob(".writing-*"):
            os.utime(leftover, (long_ago, long_ago))
        live(partial(work, place, "rename"))
        assert content(place, hidden=True) == alone
        shutil.rmtree(place)
        tally.ends += 1
    return tally


def has_more(folder: Path, before: int) -> bool:
    """Whether there is more in the folder than before."""
    return len(list(folder.glob("*"))) > before


def look_at_folders(
    place: Path, below: str, alone: dict[str, str], whole: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Each patient's folder is complete and as it should be; those that were there before weren't made anew."""
    found = content(place)
    assert found.items() <= alone.items()
    now = {}
    for patient in (place / below).glob("[!.]*"):
        inside = patient.relative_to(place).as_posix() + "/"
        if patient.is_dir():
            assert {path for path in found if path.startswith(inside)} == {
                path for path in alone if path.startswith(inside)
            }
            now[patient.name] = patient.stat().st_ino, patient.stat().st_mtime_ns
    assert whole.items() <= now.items()
    return now


def content(folder: Path, hidden: bool = False) -> dict[str, str]:
    """The hash of every file under a folder, without those that lie under a temporary name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    return {name: sha256(path) for path, name in names.items() if hidden or "/." not in f"/{name}"}


if __name__ == "__main__":
    torch.set_num_threads(1)  # a look at weights would start threads here, and a forked process waits for them forever
    what, where, seed = sys.argv[1:]
    killers = {"training": kill_training, "preprocessing": kill_preprocessing, "phantoms": kill_phantoms}
    result = killers[what](Path(where), np.random.default_rng(int(seed)))
    print(json.dumps(vars(result)))
