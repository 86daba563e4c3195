"""What a killed process leaves behind: half-written files and folders under the temporary names of ``replacing``."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LEFTOVER_SECONDS = 3600  # a patient takes seconds to write: what is older was left behind by a process that was killed


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove the leftovers in each folder. Younger ones stay: another process may be at them right now.

    Raises:
        OSError: one can't be removed.
    """
    for folder in folders:
        for leftover in [*folder.glob(".writing-*"), *folder.glob(".replaced-*")]:
            with suppress(FileNotFoundError):  # another process may be through with it
                if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
