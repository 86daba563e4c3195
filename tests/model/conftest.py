import csv
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def official_layout() -> dict[str, dict[str, tuple[int, ...]]]:
    """Encoder -> published key -> shape, of all but the encoder itself: names and shapes, no weights."""
    layout: dict[str, dict[str, tuple[int, ...]]] = {}
    with open(Path(__file__).parent / "official_layout.csv", newline="") as file:
        for row in csv.DictReader(file):
            shape = tuple(int(side) for side in row["shape"].split("x") if side)
            layout.setdefault(row["encoder"], {})[row["key"]] = shape
    return layout
