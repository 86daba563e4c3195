"""The course packed for machines without a network (``make offline``), tried with two tiny packages and no network."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

from emcad_lib.files import CourseError

# A class machine may have none: it was packed elsewhere.
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="packing needs git")

ROOT = Path(__file__).parents[1]
BACKEND = """\
import sys
sys.path.insert(0, "")
from wheel_of import write_wheel

def build_editable(folder, *_):
    return write_wheel(folder, "course", "1.0")
"""


def write_wheel(folder, name, version, text=""):
    """Write the smallest wheel that pip installs, and return its file's name."""
    file = f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": text,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{about}/RECORD,,"]
    for path, value in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(value.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(value)}")
    content[f"{about}/RECORD"] = "\n".join(lines) + "\n"
    with zipfile.ZipFile(os.path.join(folder, file), "w") as archive:
        for path, value in content.items():
            archive.writestr(path, value)
    return file


def git(home: Path, *command: str) -> None:
    me = ("-c", "user.name=me", "-c", "user.email=me@localhost")
    subprocess.run(["git", "-C", str(home), *me, *command], check=True, capture_output=True)


@pytest.fixture
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("pack_offline", ROOT / "data_scripts" / "pack_offline.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A course of two packages in git, and a shop that has them where pip looks; nothing else is to be had."""
    shop = tmp_path / "shop"
    shop.mkdir()
    write_wheel(shop, "apple", "1.0")
    write_wheel(shop, "pear", "2.0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "Makefile", home)
    (home / "requirements.txt").write_text("apple==1.0\npear==2.0\n")
    (home / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "course"\nversion = "1.0"\n'
    )
    (home / "backend.py").write_text(BACKEND)
    code = inspect.getsource(write_wheel)
    (home / "wheel_of.py").write_text(f"import base64, hashlib, os, zipfile\n\n\n{code}")
    git(home, "init", "--quiet")
    git(home, "add", "--all")
    git(home, "commit", "--quiet", "--message", "All")
    return home


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


Usage = namedtuple("Usage", "total used free")
APPLE, PEAR = "apple-1.0-py3-none-any.whl", "pear-2.0-py3-none-any.whl"


def test_it_packs_the_committed_course_its_packages_and_patients_and_says_what_it_leaves(
    script, home, phantoms, tmp_path, capsys
):
    (home / "data").mkdir()
    (home / "data" / "phantom").symlink_to(phantoms)  # whole ones are there already
    (home / "requirements.txt").write_text("apple==1.0\n# not committed\npear==2.0\n")

    script.pack(tmp_path / "out", home, patients=2)

    out = tmp_path / "out"
    assert names(out) == {
        "Makefile", "pyproject.toml", "requirements.txt", "backend.py", "wheel_of.py", "wheels", "data",
        "READ ME FIRST.txt",
    }  # fmt: skip
    assert "not committed" not in (out / "requirements.txt").read_text()
    assert names(out / "wheels") == {APPLE, PEAR, "made-for.txt"}
    assert names(out / "data" / "phantom") == {"Phantom_000", "Phantom_001"}
    assert names(out / "data" / "phantom" / "Phantom_001") == names(phantoms / "Phantom_001")
    said = capsys.readouterr().out
    assert "Not packed, because it isn't committed: what is new in requirements.txt" in said
    assert "Still to pack: 2 wheels, 0.00 GB, and 2 patients" in said
    assert "GB are free" in said


def test_the_copied_folder_sets_itself_up_without_a_network(script, home, tmp_path, monkeypatch):
    script.pack(tmp_path / "out", home, patients=0)
    shutil.move(tmp_path / "out", tmp_path / "class room")
    shutil.rmtree(tmp_path / "shop")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_NO_INDEX")  # so only the Makefile keeps pip from the network, which isn't there either:
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")

    done = make(tmp_path / "class room", "setup", f"PYTHON={sys.executable}")

    assert "Set-up done" in done.stdout, done.stdout + done.stderr
    python = tmp_path / "class room" / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", "import apple, pear, course"], check=True, cwd=tmp_path)


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True)


def test_a_python_that_the_packages_are_not_for_is_refused(home):
    (home / "wheels").mkdir()
    (home / "wheels" / "made-for.txt").write_text("Python 3.11, Amiga m68k\n")

    done = make(home, "setup")

    assert done.returncode
    assert (
        "The packages in wheels/ are for Python 3.11, Amiga m68k, and that isn't found here. Install it" in done.stdout
    )
    assert not (home / ".venv").exists()


def test_an_interrupted_pack_goes_on_where_it_stopped(script, home, tmp_path, monkeypatch):
    pip, fetched, stop = script._pip, [], True

    def watched(command, *options, **work):
        if command == "download":
            name = options[-1].partition("#")[0].rpartition("/")[2]
            if stop and name == PEAR:
                raise KeyboardInterrupt
            fetched.append(name)
        return pip(command, *options, **work)

    monkeypatch.setattr(script, "_pip", watched)
    with pytest.raises(KeyboardInterrupt):
        script.pack(tmp_path / "out", home, patients=0)
    assert names(tmp_path / "out" / "wheels") == {APPLE}  # and nothing that says that it's whole

    (tmp_path / "out" / "wheels" / ".writing-1-2-x.whl").write_bytes(b"as kill -9 leaves it")
    stop = False
    script.pack(tmp_path / "out", home, patients=0)

    assert names(tmp_path / "out" / "wheels") == {APPLE, PEAR, "made-for.txt"}
    assert fetched == [APPLE, PEAR]


def test_a_damaged_package_is_fetched_again_and_one_that_is_no_longer_needed_goes(script, home, tmp_path):
    script.pack(tmp_path / "out", home, patients=0)
    wheels = tmp_path / "out" / "wheels"
    whole = (wheels / APPLE).read_bytes()
    (wheels / APPLE).write_bytes(whole[:-1])
    (wheels / "apple-0.9-py3-none-any.whl").write_bytes(b"of last year's course")

    script.pack(tmp_path / "out", home, patients=0)

    assert (wheels / APPLE).read_bytes() == whole
    assert names(wheels) == {APPLE, PEAR, "made-for.txt"}


def test_a_package_that_arrives_otherwise_than_announced_is_not_kept(script, home, tmp_path, monkeypatch):
    wrong = script.Wheel((tmp_path / "shop" / APPLE).as_uri(), "0" * 64)
    monkeypatch.setattr(script, "find_wheels", lambda _: [wrong])

    with pytest.raises(CourseError, match="The packages can't be fetched .*run the same command again"):
        script.pack(tmp_path / "out", home, patients=0)

    assert names(tmp_path / "out" / "wheels") == set()


def test_a_disk_without_the_room_is_refused_before_anything_is_fetched(script, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script.shutil, "disk_usage", lambda _: Usage(0, 0, 50_000_000))

    with pytest.raises(CourseError, match=r"needs 0\.31 GB, and 0\.05 GB are free\. Free some space, or choose"):
        script.pack(tmp_path / "out", home, patients=20)

    assert "This needs 0.31 GB" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_without_a_connection_it_says_what_to_do(script, home, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_FIND_LINKS")

    with pytest.raises(CourseError, match="can't be fetched .*apple.* Check the connection .* run the same command"):
        script.pack(tmp_path / "out", home, patients=0)


def test_a_folder_that_did_not_come_from_git_is_refused(script, home, tmp_path, monkeypatch):
    shutil.rmtree(home / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    with pytest.raises(CourseError, match="git can't say what is committed here .* that came from git clone"):
        script.pack(tmp_path / "out", home, patients=0)


def test_a_file_where_the_pack_is_to_go_is_named_and_stays(script, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")

    assert script.main(["--out", str(tmp_path / "mine")]) == 1

    assert f"{tmp_path / 'mine'}: this is a file and no folder. Give --out another place." in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


def test_the_command_line_goes_on_after_a_stop_and_prints_errors_without_a_traceback(
    script, home, tmp_path, monkeypatch, capsys
):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("EMCAD_HOME", str(home))
    shutil.rmtree(tmp_path / "shop")

    assert script.main(["--out", str(tmp_path / "out")]) == 1
    assert "Check the connection" in capsys.readouterr().err
    monkeypatch.setattr(script, "pack", stopped)
    assert script.main(["--out", str(tmp_path / "out")]) == 130
    assert "The same command goes on where this one was" in capsys.readouterr().err


def test_make_offline_packs_into_a_folder_that_git_ignores():
    commands = subprocess.run(
        ["make", "--dry-run", "offline"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    assert "data_scripts/pack_offline.py --out offline" in commands
    assert "/offline/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
