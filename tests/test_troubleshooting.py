"""The ten failures that the README lists happen as it says: each is provoked, and its message says what to do."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import kagglehub
import nbformat
import nibabel as nib
import numpy as np
import pytest
import requests

from emcad_lib import segment
from emcad_lib.figures import run_notebook
from emcad_lib.files import CourseError
from emcad_lib.lesson import begin
from emcad_lib.train import __main__ as training

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Troubleshooting")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", SECTION, flags=re.M))


class Reader:
    """Does what goes wrong, and returns the message that appears."""

    def __init__(self, folder: Path, tiny_patients: Callable[..., list[Path]], tiny_cache: Path, monkeypatch, capsys):
        self.folder, self.tiny_patients, self.tiny_cache = folder, tiny_patients, tiny_cache
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def segments(self, patient: Path) -> str:
        return self.sees(segment.main, str(patient), "--out", str(self.folder / "seg.nii.gz"))

    def trains(self, *more: str) -> str:
        sizes = "--name first --epochs 1 --slices-per-epoch 8 --image-size 32".split()
        places = ["--cache", str(self.tiny_cache), "--runs", str(self.folder / "runs")]
        return self.sees(training.main, *places, *sizes, *more)

    def sees(self, command: Callable[[list[str]], int], *arguments: str) -> str:
        self.capsys.readouterr()
        code = command(list(arguments))
        said = self.capsys.readouterr().err
        assert bool(code) == bool(said)
        assert "Traceback" not in said
        return said


@pytest.fixture
def reader(tmp_path, tiny_patients, tiny_cache, monkeypatch, capsys) -> Reader:
    monkeypatch.setenv("EMCAD_HOME", str(tmp_path))
    return Reader(tmp_path, tiny_patients, tiny_cache, monkeypatch, capsys)


def script(name: str) -> ModuleType:
    """A script of data_scripts as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "data_scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- The ten ---------------------------------------------------------------------------------------------------------


def no_python(reader: Reader) -> str:
    """On a path where there is everything that the Makefile needs but Python."""
    tools = reader.folder / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "touch"):
        (tools / tool).symlink_to(shutil.which(tool))
    command = [shutil.which("make"), "setup", f"VENV={reader.folder / 'venv'}", "PYTHON=", "PACKED_FOR="]
    return subprocess.run(command, cwd=ROOT, env={"PATH": str(tools)}, capture_output=True, text=True).stdout


def full_disk(reader: Reader) -> str:
    reader.tiny_patients(reader.folder / "patients")

    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    reader.monkeypatch.setattr(Path, "write_bytes", full)
    arguments = [str(reader.folder / "patients"), "--out", str(reader.folder / "cache"), "--workers", "1"]
    return reader.sees(script("preprocess").main, *arguments)


def no_patient(reader: Reader) -> str:
    (reader.folder / "BraTS.zip").write_bytes(b"not unpacked")
    return reader.segments(reader.folder)


def two_people(reader: Reader) -> str:
    """Of 2023, with two scans of one of them."""
    patients = reader.tiny_patients(reader.folder / "patients", 2, "2023")
    again = reader.folder / "patients" / "BraTS-GLI-00001-001"
    again.mkdir()
    for file in patients[0].iterdir():
        shutil.copy(file, again / file.name.replace("00001-000", "00001-001"))
    with pytest.raises(CourseError) as error:
        _ = begin("01", "ci", str(reader.folder / "patients")).cache
    return str(error.value)


def damaged_file(reader: Reader) -> str:
    (patient,) = reader.tiny_patients(reader.folder / "patients", 1)
    file = patient / f"{patient.name}_t1ce.nii.gz"
    file.write_bytes(file.read_bytes()[:-100])
    return reader.segments(patient)


def labels_of_another_year(reader: Reader) -> str:
    (patient,) = reader.tiny_patients(reader.folder / "patients", 1)
    file = patient / f"{patient.name}_seg.nii.gz"
    image = nib.load(file)
    nib.save(nib.Nifti1Image(np.full(image.shape, 3, dtype=np.uint8), image.affine), file)
    return reader.segments(patient)


def too_little_memory(reader: Reader) -> str:
    """A training that may take 1 GB more than it has before its first batch, and asks for several.

    Only Linux counts what a process asks for. Elsewhere the shortage is played.
    """
    code = (
        "import resource, sys; from emcad_lib.train import engine, __main__ as command; step = engine.take_step\n"
        "def limited(*arguments):\n"
        "    if sys.platform != 'linux': raise MemoryError\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000_000, resource.RLIM_INFINITY))\n"
        "    return step(*arguments)\n"
        "engine.take_step = limited\n"
        "sys.exit(command.main(sys.argv[1:]))"
    )
    settings = "--name large --epochs 1 --batch-size 16 --slices-per-epoch 16 --image-size 224".split()
    places = ["--cache", str(reader.tiny_cache), "--runs", str(reader.folder / "runs")]
    return subprocess.run([sys.executable, "-c", code, *places, *settings], capture_output=True, text=True).stderr


def dead_kernel(reader: Reader) -> str:
    cell = nbformat.v4.new_code_cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), reader.folder / "01_killed.ipynb")
    with pytest.raises(CourseError) as error:
        run_notebook(reader.folder / "01_killed.ipynb", reader.folder / "executed" / "01_killed.ipynb", {})
    return str(error.value)


def another_run_of_that_name(reader: Reader) -> str:
    assert reader.trains("--batch-size", "4") == ""
    return reader.trains("--batch-size", "8")


def no_kaggle_token(reader: Reader) -> str:
    """As kagglehub says it, without asking Kaggle."""
    response = requests.Response()
    response.status_code = 403

    def refuse(*_: object, **__: object) -> None:
        raise kagglehub.exceptions.KaggleApiHTTPError("403 Client Error.", response=response)

    download = script("download_brats")
    reader.monkeypatch.setattr(download, "KAGGLE_BYTES", 1000)
    reader.monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    reader.monkeypatch.setenv("KAGGLEHUB_CACHE", "")
    return reader.sees(download.main, "brats2020", "--out", str(reader.folder / "brats"))


# What the README quotes -> how it comes about, and what the whole message tells the reader to do.
TEN = {
    "No Python 3.11, 3.12 or 3.13 found": (no_python, "Install one .* or name it: make PYTHON="),
    "the disk is full. Nothing was overwritten": (full_disk, "free some space and run the same command again"),
    "no patient found. Files are expected to be called like": (no_patient, r"CASE_flair\.nii\.gz .* imagesTr"),
    "a lesson needs three different people": (two_people, "Add some to the folder"),
    "the compressed file is truncated or damaged": (
        damaged_file, r"BraTS20_Training_001_t1ce\.nii\.gz: .* Copy or download the file again",
    ),
    "unknown label values: found": (labels_of_another_year, "found 3, .* Mend the segmentation; or, .* name all files"),
    "Out of memory, with": (too_little_memory, "16 slices of 224 pixels at once. The same .* with --accumulate 2 "),
    "its kernel died, most likely because memory ran out": (dead_kernel, "Close other programs, or take a smaller"),
    "a run can't go on otherwise than it began": (
        another_run_of_that_name, "batch_size was 4, is now 8. Take another --name",
    ),
    "Kaggle refuses (status": (no_kaggle_token, r"403\)\. Make an API token on .*kaggle\.json, and accept the terms"),
}  # fmt: skip


def test_the_readme_lists_ten_failures():
    assert list(ROWS) == list(TEN)


@pytest.mark.parametrize("quoted", TEN)
def test_the_message_is_as_the_readme_quotes_it_and_says_what_to_do(quoted, reader):
    provoke, remedy = TEN[quoted]

    message = provoke(reader)

    assert quoted in message
    assert re.search(remedy, message, flags=re.S), message


@pytest.mark.parametrize("quoted", TEN)
def test_the_readme_names_every_setting_that_helps_with_a_failure(quoted):
    remedy = TEN[quoted][1]
    settings = re.findall(r"--[a-z]+|PYTHON=", remedy)

    assert [setting for setting in settings if setting not in ROWS[quoted]] == []
