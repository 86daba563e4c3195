"""Train a network from the command line: ``python -m emcad_lib.train --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from emcad_lib.files import CourseError
from emcad_lib.train.config import parse_arguments
from emcad_lib.train.engine import train


def main(argv: Sequence[str] | None = None) -> int:
    """Train as ``argv`` says; returns the exit code."""
    try:
        config = parse_arguments(argv)
        ledger = train(config)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command with --resume goes on after the last whole epoch.", file=sys.stderr)
        return 130
    best = ledger.best
    print(f"Best epoch: {best['epoch']:.0f} of {len(ledger.rows)}, Dice per patient {best['dice_patient']:.3f}.")
    print(f"Run: {config.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
