"""Preprocessing and the making of phantoms, killed or out of disk: nothing half-written, and nothing done twice."""

import errno
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emcad_lib.data import phantom
from emcad_lib.data.cache import Cache
from emcad_lib.data.phantom import Phantom, is_finished, make_phantoms
from emcad_lib.data.preprocess import preprocess
from emcad_lib.files import CourseError

ROOT = Path(__file__).parents[2]
KILL_NINE = ROOT / "tests" / "kill_nine.py"


def kill(what, folder):
    """Kill it twenty times; what it leaves is looked at there each time."""
    command = [sys.executable, str(KILL_NINE), what, str(folder), str(secrets.randbelow(1_000_000))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    tally = json.loads(done.stdout)
    assert sum(tally["kills"].values()) == 20
    assert min(tally["kills"][kind] for kind in ("clock", "rename", "bytes")) >= 2
    assert tally["halves"] >= tally["kills"]["bytes"]  # a kill in the middle of a write leaves half a file
    assert tally["ends"] >= 1


def main_of(script):
    spec = importlib.util.spec_from_file_location(script, ROOT / "data_scripts" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


# Killed


def test_preprocessing_killed_with_its_workers_at_twenty_random_moments_makes_the_same_cache(tiny_patients, tmp_path):
    tiny_patients(tmp_path / "patients", 16)

    kill("preprocessing", tmp_path)


def test_the_making_of_phantoms_killed_at_twenty_random_moments_makes_the_same_patients(tmp_path):
    kill("phantoms", tmp_path)


def test_a_half_made_phantom_of_a_killed_process_is_removed_an_hour_later_and_not_before(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, "build_phantom", small)
    make_phantoms(tmp_path, 1)
    old, young = tmp_path / ".writing-1-2-Phantom_001", tmp_path / ".writing-3-4-Phantom_001"
    for leftover in (old, young):
        leftover.mkdir()
        (leftover / "Phantom_001_flair.nii.gz").write_bytes(b"half")
    os.utime(old, (0, 0))

    make_phantoms(tmp_path, 1)

    assert not old.exists()
    assert young.exists()  # perhaps another process is at it right now


# Out of disk


def small(recipe):
    return Phantom(np.zeros((4, 24, 24, 15), np.int16), np.zeros((24, 24, 15), np.uint8), recipe)


class FullDisk:
    """Lets volumes and arrays be written until ``room`` bytes are full; removing one gives its bytes back."""

    def __init__(self, monkeypatch, folder, room):
        self.folder, self.room, self.write_bytes = folder, room, Path.write_bytes
        monkeypatch.setattr(Path, "write_bytes", lambda path, data: self.write(path, data))

    def write(self, path, data):
        used = sum(file.stat().st_size for file in self.folder.rglob("*.n*"))
        fits = bytes(data)[: max(self.room - used, 0)]
        self.write_bytes(path, fits)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return len(fits)


def test_a_disk_that_fills_up_while_phantoms_are_made_is_said_and_the_next_call_makes_only_what_is_missing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(phantom, "build_phantom", small)
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--patients", "4", "--workers", "1"]
    make_phantoms(tmp_path / "alone", 4)
    with monkeypatch.context() as patch:
        FullDisk(patch, out, sum(file.stat().st_size for file in (tmp_path / "alone").rglob("*.n*")) * 5 // 8)

        assert main_of("make_phantom")(arguments) == 1

    said = capsys.readouterr().err
    assert "Phantom_002: the disk is full. Nothing was overwritten; free some space and run the same command" in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in sorted(out.iterdir())] == ["Phantom_000", "Phantom_001"]
    assert all(is_finished(out / f"Phantom_00{index}", 0, index) for index in (0, 1))
    before = [(out / name).stat().st_mtime_ns for name in ("Phantom_000", "Phantom_001")]

    assert main_of("make_phantom")(arguments) == 0

    assert [path.name for path in sorted(out.iterdir())] == [f"Phantom_00{index}" for index in range(4)]
    assert [(out / name).stat().st_mtime_ns for name in ("Phantom_000", "Phantom_001")] == before


def test_when_the_disk_is_full_for_one_phantom_the_one_beside_it_is_finished_first(tmp_path, monkeypatch):
    failed = threading.Event()
    write_json = phantom.write_json

    def slow(recipe):
        if recipe["index"] == 0:
            assert failed.wait(60)
            time.sleep(0.2)  # for the message, which must not overtake this patient
        return small(recipe)

    def full_for_the_others(path, content):
        if content["index"] != 0:
            failed.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_json(path, content)

    monkeypatch.setattr(phantom, "build_phantom", slow)
    monkeypatch.setattr(phantom, "write_json", full_for_the_others)

    with pytest.raises(CourseError, match="Phantom_00[1-5]: the disk is full"):
        make_phantoms(tmp_path, 6, workers=2)

    assert is_finished(tmp_path / "Phantom_000", 0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["Phantom_000"]


def test_a_disk_that_fills_up_during_preprocessing_is_said_by_the_command_and_the_next_call_goes_on(
    tiny_patients, tmp_path, monkeypatch, capsys
):
    tiny_patients(tmp_path / "patients", 4)
    preprocess(tmp_path / "patients", tmp_path / "alone", workers=1)
    room = sum(file.stat().st_size for file in (tmp_path / "alone").rglob("*.n*")) * 5 // 8
    arguments = [str(tmp_path / "patients"), "--out", str(tmp_path / "cache"), "--workers", "1"]
    with monkeypatch.context() as patch:
        FullDisk(patch, tmp_path / "cache", room)

        assert main_of("preprocess")(arguments) == 1

    said = capsys.readouterr().err
    assert "BraTS20_Training_003: the disk is full" in said
    assert len(said.splitlines()) == 1
    prepared = [path.name for path in sorted((tmp_path / "cache" / "patients").iterdir())]
    assert prepared == ["BraTS20_Training_001", "BraTS20_Training_002"]
    with pytest.raises(CourseError, match="this cache isn't finished"):
        Cache(tmp_path / "cache")

    assert main_of("preprocess")(arguments) == 0
    assert "2 patients prepared, 2 already there" in capsys.readouterr().out
    assert Cache(tmp_path / "cache").hash == Cache(tmp_path / "alone").hash


# Python runs it before anything else, in each process: to patient 2, the disk is full.
FULL_FOR_ONE = """
import errno, os
from pathlib import Path
write_bytes = Path.write_bytes
def write(path, data):
    if "Training_002" in str(path):
        write_bytes(path, bytes(data)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return write_bytes(path, data)
Path.write_bytes = write
"""


def test_a_full_disk_in_a_worker_process_is_said_as_in_this_one(tiny_patients, tmp_path):
    tiny_patients(tmp_path / "patients", 3)
    (tmp_path / "sitecustomize.py").write_text(FULL_FOR_ONE)
    command = [sys.executable, str(ROOT / "data_scripts" / "preprocess.py"), str(tmp_path / "patients")]
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))

    done = subprocess.run(
        [*command, "--out", str(tmp_path / "cache"), "--workers", "2"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    assert "BraTS20_Training_002: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cache" / "patients" / "BraTS20_Training_002").exists()
    report = preprocess(tmp_path / "patients", tmp_path / "cache", workers=1)
    assert "BraTS20_Training_002" in report.prepared
    assert len(Cache(tmp_path / "cache").names()) == 3
