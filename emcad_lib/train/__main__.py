"""Train a network from the command line: ``python -m emcad_lib.train --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from emcad_lib.files import CourseError
from emcad_lib.train.config import parse_arguments
from emcad_lib.train.engine import train
from emcad_lib.train.processes import StoppedElsewhereError, is_main, processes


def main(argv: Sequence[str] | None = None) -> int:
    """Train as ``argv`` says; returns the exit code."""
    try:
        config = parse_arguments(argv)
    except CourseError as error:  # the same in all processes
        _say(error)
        return 1
    try:
        ledger = train(config)
    except StoppedElsewhereError:
        return 1
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        with_resume = "" if config.resume else " with --resume"
        _say(f"\nStopped. The same command{with_resume} goes on after the last whole epoch.")
        return 130
    if is_main():
        best = ledger.best
        print(f"Best epoch: {best['epoch']:.0f} of {len(ledger.rows)}, Dice per patient {best['dice_patient']:.3f}.")
        print(f"Run: {config.folder}")
    processes().destroy_process_group()
    return 0


def _say(message: object) -> None:
    if is_main():
        print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
