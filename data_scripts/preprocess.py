"""Prepare a folder of BraTS patients for training: python data_scripts/preprocess.py DATA_DIR --out CACHE_DIR"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from emcad_lib.data.preprocess import preprocess
from emcad_lib.files import CourseError


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 1 when a patient was left out, or nothing could be done."""
    parser = argparse.ArgumentParser(description="Prepare a folder of BraTS patients for training.")
    parser.add_argument("data_dir", metavar="DATA_DIR", help="a folder of patients, or the Decathlon's")
    parser.add_argument("--out", required=True, metavar="CACHE_DIR", help="where to write the cache")
    parser.add_argument("--workers", type=int, default=None, help="processes at once (default: one per processor)")
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="work on the Dask cluster whose scheduler has this address, such as tcp://host:8786, with the workers it "
        "has; or, for the word local, on one of this machine's processors. All workers need the course installed, and "
        "must see DATA_DIR and CACHE_DIR under the same paths: on several machines, take a disk that they share",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split into train, val and test (default: 0)")
    parser.add_argument("--limit", type=int, default=None, help="take the first so many patients only (default: all)")
    options = parser.parse_args(argv)
    try:
        report = preprocess(options.data_dir, options.out, options.workers, options.seed, options.limit, options.dask)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(report.prepared)} patients prepared, {len(report.reused)} already there: {options.out}")
    for problem in report.problems:
        print(f"Left out: {problem}", file=sys.stderr)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
