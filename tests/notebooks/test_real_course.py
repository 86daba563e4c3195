"""The whole course on real patients, by its command. Collected only where EMCAD_BRATS_DIR names a folder of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from emcad_lib.files import read_json

pytestmark = pytest.mark.real


@pytest.mark.timeout(3600)
def test_the_whole_course_runs_on_real_patients(brats_dir, home, tmp_path):
    out = tmp_path / "figures"
    command = [
        sys.executable,
        "-m",
        "emcad_lib.figures",
        "--profile",
        "ci",
        "--data",
        str(brats_dir),
        "--out",
        str(out),
    ]

    done = subprocess.run(command, env=os.environ | {"EMCAD_HOME": str(home)}, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = read_json(out / "manifest.json")["figures"]
    assert len(figures) >= 14
    assert len({record["notebook"] for record in figures}) == 14
    for record in figures:
        assert (out / record["file"]).read_bytes().startswith(b"\x89PNG")
        assert (out / record["data"]).is_file()
        assert record["patients"] == "a reader's own"
