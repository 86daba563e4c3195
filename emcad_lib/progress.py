"""One progress bar for terminals and notebooks alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(items: Iterable[Any] | None = None, label: str = "", total: int | None = None, unit: str = "it") -> tqdm:
    """A progress bar over ``items``, or one to be moved on by hand with ``update()``.

    It writes to standard output: in a notebook, what goes to standard error looks like something went wrong.
    """
    return tqdm(items, desc=label, total=total, unit=unit, file=sys.stdout, dynamic_ncols=True, mininterval=0.5)
