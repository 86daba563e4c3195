"""Make phantom patients: python data_scripts/make_phantom.py --out DIR --patients N [--seed 0] [--workers W]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from emcad_lib.data.leave_out import INGREDIENTS
from emcad_lib.data.phantom import make_phantoms
from emcad_lib.files import CourseError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Make synthetic brain tumour patients in the BraTS 2020 format.")
    parser.add_argument("--out", required=True, help="the folder to make them in; whole patients that are there stay")
    parser.add_argument("--patients", type=int, required=True, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other patients (default: 0)")
    parser.add_argument("--workers", type=int, help="patients at once (default: one per processor)")
    parser.add_argument("--leave-out", metavar="INGREDIENT", help=f"make them without one of: {', '.join(INGREDIENTS)}")
    arguments = parser.parse_args(argv)
    try:
        folders = make_phantoms(
            arguments.out, arguments.patients, arguments.seed, arguments.workers, arguments.leave_out
        )
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(folders)} {'patient is' if len(folders) == 1 else 'patients are'} in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
