"""Files that are either whole or not there, and errors that a reader can act on.

Everything that the course writes goes through here: it's written beside its place and renamed into it, so that an
interruption or a full disk never leaves half a file under a good name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LEFTOVER_SECONDS = 3600  # a patient takes seconds to write: what is older was left behind by a process that was killed
SPACE_OF_A_FULL_DISK = 1 << 20  # bytes: writers stop when the next block doesn't fit, so a little is left


class CourseError(Exception):
    """Something that the reader can mend. The message says what is wrong, where, and what to do."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write a file or a folder to, and rename it into place when the block ends well.

    The temporary name keeps the suffix, because writers such as nibabel and matplotlib choose the format by it.

    Raises:
        CourseError: when the disk is full, or nothing may be written there. Whatever stood at ``path`` before is still
            there, untouched.
    """
    path = Path(path)
    mine = f"{os.getpid()}-{threading.get_ident()}"
    beside, aside = (path.parent / f".{what}-{mine}-{path.name}" for what in ("writing", "replaced"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        _remove(beside)
        yield beside
        if path.is_dir():  # a folder can't be renamed onto another, so the old one steps aside first
            os.replace(path, aside)
        os.replace(beside, path)
    except CourseError:
        raise
    except Exception as error:
        if not (_is_full(path.parent, error) or _is_refused(beside, error)):
            raise
        raise _not_written(path, error) from error
    finally:
        _remove(beside)
        _remove(aside)


def remove_leftovers(folder: Path, older_than: float = LEFTOVER_SECONDS) -> None:
    """Remove the half-written files and folders that killed processes have left in a folder.

    Args:
        folder: where `replacing` has written to; it needn't exist.
        older_than: seconds. Younger ones stay: another process may be at them right now.

    Raises:
        OSError: one can't be removed.
    """
    for leftover in [*folder.glob(".writing-*"), *folder.glob(".replaced-*")]:
        with suppress(FileNotFoundError):  # another process may be through with it
            if time.time() - leftover.stat().st_mtime >= older_than:
                _remove(leftover)


def check_place(path: str | Path, setting: str, is_folder: bool = False) -> None:
    """Make sure, before the work, that no file stands where a folder is needed, and no folder in the file's place.

    Args:
        path: the file that is to be written, or the folder.
        setting: what gives it another place, such as ``--out``.
        is_folder: whether ``path`` is to be a folder.

    Raises:
        CourseError: there is one. The message names it.
    """
    path = Path(path)
    if path.is_dir() and not is_folder:  # which `replacing` would replace, with all that is in it
        raise CourseError(f"{path}: this is a folder. Give {setting} the name of a file in it.")
    for place in (path, *path.parents) if is_folder else path.parents:
        if place.is_file():
            what = "this" if place == path else place
            raise CourseError(f"{path}: {what} is a file and no folder. Give {setting} another place.")


def _not_written(path: Path, error: Exception) -> CourseError:
    if _is_full(path.parent, error):
        what = "the disk is full. Nothing was overwritten; free some space and run the same command again."
    else:
        what = f"can't be written ({getattr(error, 'strerror', error)}). Choose another place for it."
    return CourseError(f"{path}: {what}")


def _is_refused(beside: Path, error: Exception) -> bool:
    """Whether nothing can be written in that folder; an error about any other file is none of ours."""
    if not isinstance(error, OSError) or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
        return False
    return str(error.filename) == str(beside) and error.filename2 is None


def _is_full(folder: Path, error: Exception) -> bool:
    """Whether a write failed for want of space.

    The system's error number says it. But some libraries pass on its words only, and NumPy and PyTorch not even those:
    then a look at the disk decides.
    """
    reasons = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in reasons
    if any(os.strerror(reason) in str(error) for reason in reasons):
        return True
    return folder.is_dir() and shutil.disk_usage(folder).free < SPACE_OF_A_FULL_DISK


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as JSON that people can read and diff."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        CourseError: when there is no such file, or it isn't JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CourseError(f"{path}: there is no such file. Check the path, or run again what writes it.") from error
    except ValueError as error:
        raise CourseError(
            f"{path}: this is not readable as JSON ({error}). Delete it, and run again what writes it."
        ) from error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def project_home() -> Path:
    """The course's folder: EMCAD_HOME, else the nearest folder above this one that holds the course, else this one."""
    if os.environ.get("EMCAD_HOME"):
        return Path(os.environ["EMCAD_HOME"])
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "emcad_lib").is_dir()), here)
