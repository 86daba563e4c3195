"""A copy of a run in another place, such as a folder of Google Drive: a Colab runtime vanishes with all its files."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from emcad_lib.files import CourseError, read_json, remove_leftovers, replacing
from emcad_lib.train.checkpoint import BEST_FILE, LAST_FILE
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.ledger import HISTORY_FILE, RUN_FILE, STATE_FILE, Ledger, is_run

# In this order, so that a copy that breaks off anywhere is a run that can go on. A state says which epoch was the best,
# so the best weights can't be older than it. The history is written again from the state. And a folder without a
# run.json doesn't count as a run: on the first time, it comes when all else is there.
FILES = (BEST_FILE, STATE_FILE, LAST_FILE, HISTORY_FILE, RUN_FILE)


class Mirror:
    """Keeps a copy of one run. Without ``--mirror``, it does nothing.

    Attributes:
        run: the run's folder.
        copy: the folder of its copy; None where there is to be none.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.run = config.folder
        self.copy = Path(config.mirror) / config.name if config.mirror else None
        self._resume = config.resume
        self._warned = False

    def bring_back(self) -> None:
        """Copy the run back from the mirror, if it's there only.

        Raises:
            CourseError: when it can't be copied, and when it isn't to go on but start anew.
        """
        if self.copy is None or is_run(self.run) or not is_run(self.copy):
            return
        if not self._resume:
            raise CourseError(
                f"{self.copy}: there is a run of this name in the mirror. Go on with it by --resume, or take another "
                f"--name."
            )
        try:
            _copy(self.copy, self.run)
        except OSError as error:
            raise CourseError(
                f"{self.copy}: the run could not be copied back from here ({error}). Check that the drive is there and "
                f"can be read, or begin anew under another --name."
            ) from error

    def check(self, ledger: Ledger) -> None:
        """Make sure that the mirror holds no other run of this name, which would be overwritten.

        Raises:
            CourseError: when it does.
        """
        if self.copy is None or not is_run(self.copy):
            return
        if (started := read_json(self.copy / RUN_FILE).get("started")) != ledger.run["started"]:
            raise CourseError(
                f"{self.copy}: the mirror holds another run of this name, started {started}. Take another --name."
            )

    def update(self) -> None:
        """Copy the run's files. What can't be written is warned of, once, and tried again the next time."""
        if self.copy is None:
            return
        try:
            # Only the last folder is made: where a drive isn't mounted, its folders would come to lie on this disk.
            self.copy.parent.mkdir(exist_ok=True)
            remove_leftovers(self.copy, older_than=0)
            _copy(self.run, self.copy)
        except (OSError, CourseError) as error:
            if not self._warned:
                warnings.warn(
                    f"The run could not be copied to {self.copy} ({error}). Check that --mirror names a folder that "
                    f"can be written. The training goes on, and tries it again after each epoch.",
                    stacklevel=2,
                )
            self._warned = True

    def is_behind(self) -> bool:
        """Whether a finished run's copy lacks the end."""
        if self.copy is None:
            return False
        theirs, ours = self.copy / RUN_FILE, self.run / RUN_FILE
        return not theirs.is_file() or theirs.read_bytes() != ours.read_bytes()


def _copy(source: Path, target: Path) -> None:
    for file in FILES:
        if (source / file).is_file():
            with replacing(target / file) as beside:
                shutil.copyfile(source / file, beside)
