"""Pack the course for machines without a network: python data_scripts/pack_offline.py --out DIR, or make offline.

DIR then holds the course as git has it, ``wheels/`` with every package that it installs, and ``data/phantom`` with the
patients of the quick profile. Copied to another machine, it needs Python, make and no network: where the Makefile finds
``wheels/made-for.txt``, it installs from there.

Wheels are for one Python and one kind of system, those that this runs on. Whatever is there already, and whole, stays:
a pack that was interrupted goes on where it stopped, and one that is whole is brought up to date.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from emcad_lib.data.phantom import is_finished, make_phantoms, patient_name
from emcad_lib.files import CourseError, check_place, project_home, remove_leftovers, replacing, sha256
from emcad_lib.profiles import PROFILES
from emcad_lib.progress import progress

WHEELS, PHANTOMS = "wheels", "data/phantom"
MADE_FOR = "made-for.txt"  # in wheels/, written last: where it stands, the wheels are whole. The Makefile reads it
READ_ME = "READ ME FIRST.txt"
PHANTOM_BYTES = 10_500_000  # of one patient: 6.6 to 10.3 MB were seen
COURSE_BYTES = 100_000_000  # the course itself, its archive while it's unpacked, and some air


@dataclass(frozen=True)
class Wheel:
    """A package to fetch: where it is, and what it has to be."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return unquote(Path(urlsplit(self.url).path).name)

    def is_in(self, folder: Path) -> bool:
        """Whether the folder holds it, whole."""
        return (folder / self.name).is_file() and sha256(folder / self.name) == self.sha256

    def size(self) -> int:
        """Bytes, asked for without fetching it; 0 where the server doesn't say: the packing itself may still work."""
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, method="HEAD"), timeout=30) as answer:
                return int(answer.headers.get("Content-Length", 0))
        except OSError:
            return 0


def pack(out: Path, home: Path, patients: int) -> None:
    """Pack the course in ``home`` into ``out``, with so many phantom patients.

    Raises:
        CourseError: there is no git or no repository; the packages can't be had; the disk is too full. What is in
            ``out`` by then stays, and the same call goes on from there.
    """
    commit = _commit(home)
    wheels = find_wheels(home / "requirements.txt")
    folder, phantoms = out / WHEELS, out / PHANTOMS
    missing = [wheel for wheel in wheels if not wheel.is_in(folder)]
    unmade = [index for index in range(patients) if not _is_packed(phantoms, index)]
    _check_space(out, missing, len(unmade))

    _fetch(missing, folder)
    for old in {path.name for path in folder.glob("*.whl")} - {wheel.name for wheel in wheels}:
        (folder / old).unlink()  # of an earlier version of the course
    with replacing(folder / MADE_FOR) as beside:
        beside.write_text(made_for() + "\n", encoding="utf-8")
    if unmade:
        _copy_phantoms(make_phantoms(home / PHANTOMS, patients), phantoms, unmade)
    _unpack_course(home, out)
    with replacing(out / READ_ME) as beside:
        beside.write_text(read_me(commit, len(wheels), patients), encoding="utf-8")

    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"==> {out} is ready: {size / 1e9:.2f} GB, for {made_for()}. Copy all of it; {READ_ME} says how to go on")


def made_for() -> str:
    """The Python and the system that the wheels are for; the Makefile puts this together in the same way."""
    return f"Python {sys.version_info[0]}.{sys.version_info[1]}, {platform.system()} {platform.machine()}"


def find_wheels(requirements: Path) -> list[Wheel]:
    """Every wheel that the requirements ask for here, those of the packages' own dependencies too.

    Raises:
        CourseError: pip can't find them.
    """
    print("==> Looking up the packages")
    options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", "-", "-r", str(requirements)]
    found = [package["download_info"] for package in json.loads(_pip("install", *options))["install"]]
    return [Wheel(file["url"], file["archive_info"]["hashes"]["sha256"]) for file in found]


def _pip(command: str, *options: str, work: Path | None = None) -> str:
    """What pip answers. It keeps its temporary files in ``work``, or else where the system does."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", command, "--quiet", *options],
        env=os.environ | ({"TMPDIR": str(work)} if work else {}), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), done.stderr)
        raise CourseError(
            f"The packages can't be fetched ({reason.strip()}). Check the connection and the free space, and run the "
            f"same command again: what is there already is kept."
        )
    return done.stdout


def _check_space(out: Path, missing: Sequence[Wheel], unmade: int) -> None:
    """Say how much is needed and how much is free, and refuse to start what can't end well."""
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(Wheel.size, missing))
    # The largest counts twice: pip fetches a file to one place, and puts it into another.
    needed = sum(sizes) + max(sizes, default=0) + unmade * PHANTOM_BYTES + COURSE_BYTES
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    print(f"==> Still to pack: {len(missing)} wheels, {sum(sizes) / 1e9:.2f} GB, and {unmade} patients")
    print(f"==> This needs {needed / 1e9:.2f} GB in {out}, where {free / 1e9:.2f} GB are free")
    if free < needed:
        raise CourseError(
            f"{out}: this needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free. Free some space, or choose a "
            f"folder on another disk: {Path(sys.executable).name} data_scripts/pack_offline.py --out FOLDER"
        )


def _fetch(missing: Sequence[Wheel], folder: Path) -> None:
    """Fetch wheels one by one, so that each that has arrived stays, whatever happens to the next."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, older_than=0)
    if not missing:
        return
    (folder / MADE_FOR).unlink(missing_ok=True)
    for wheel in progress(missing, "Fetch packages", unit="wheel"):
        with replacing(folder / wheel.name) as beside:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as here:
                address = f"{wheel.url}#sha256={wheel.sha256}"  # which pip checks
                _pip("download", "--no-deps", "--dest", here, address, work=Path(here).absolute())
                (Path(here) / wheel.name).rename(beside)


def _is_packed(folder: Path, index: int) -> bool:
    return is_finished(folder / patient_name(index), seed=0, index=index)


def _copy_phantoms(made: Sequence[Path], folder: Path, indices: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, older_than=0)
    for index in indices:
        with replacing(folder / made[index].name) as beside:
            shutil.copytree(made[index], beside)


def _commit(home: Path) -> str:
    """The commit that will be packed. Says so when files in the folder differ from it."""
    commit = _git(home, "rev-parse", "HEAD").decode().strip()
    changed = _git(home, "status", "--porcelain").decode().splitlines()
    print(f"==> Packing the course as of commit {commit[:10]}")
    if changed:
        names = ", ".join(line[3:] for line in changed[:3]) + (", ..." if len(changed) > 3 else "")
        print(f"==> Not packed, because it isn't committed: what is new in {names}")
    return commit


def _unpack_course(home: Path, out: Path) -> None:
    """Put the committed files into ``out``, each file or folder of the top level as a whole."""
    remove_leftovers(out, older_than=0)
    with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as here:
        with tarfile.open(fileobj=io.BytesIO(_git(home, "archive", "HEAD"))) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(here)
        for place in sorted(Path(here).iterdir()):
            with replacing(out / place.name) as beside:
                place.rename(beside)


def _git(home: Path, *command: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(home), *command], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
        raise CourseError(
            f"{home}: git can't say what is committed here ({reason}). What is packed is the committed course: install "
            f"git, and run this in a folder that came from git clone."
        ) from error


def read_me(commit: str, wheels: int, patients: int) -> str:
    """The text of READ ME FIRST.txt."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f"""\
EMCAD, built block by block: the course, packed for machines without a network.

In this folder: the course as of commit {commit[:10]}, its {wheels} packages (wheels/), and {patients} made-up patients
(data/phantom). No real patient is among them.

It was made for {made_for()}. Another Python or another system can't use these packages.

1. Copy the whole folder to the machine's own disk. The environment takes another 6 GB there (.venv), and can't
   be moved afterwards. A stick or a network share is too slow to work on.
2. Needed on that machine: Python {version} with its venv module, and make. Nothing else, and no network.
3. In the copied folder:

       make lab         sets everything up, and opens JupyterLab at the first notebook
       make figures     sets everything up, and runs every notebook
       make test        sets everything up, and checks everything

What to do when something goes wrong: README.md, "Troubleshooting". For lecturers: TEACHING.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Pack the course for machines without a network.")
    parser.add_argument("--out", type=Path, default=Path("offline"), metavar="DIR", help="where (default: offline)")
    parser.add_argument(
        "--patients", type=int, default=PROFILES["quick"].patients, help="how many (default: as the quick profile has)"
    )
    arguments = parser.parse_args(argv)
    try:
        check_place(arguments.out, "--out", is_folder=True)
        pack(arguments.out, project_home(), arguments.patients)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on where this one was.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
