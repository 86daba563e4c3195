"""Who trains the network, who chooses among its versions, and who judges it: a split by patient, never by slice.

Neighbouring slices of a head are nearly the same picture. A network that has seen one of them knows the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

SPLITS = ("train", "val", "test")

_TIME_POINT = re.compile(r"(?P<person>BraTS-.+-\d{5})-\d{3}")


def split_patients(
    names: Iterable[str], seed: int = 0, fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
) -> dict[str, str]:
    """Put every patient in exactly one of "train", "val" and "test".

    It depends on the names and the seed, not on their order. From three patients on each split gets at least one; of
    two, one trains and one validates; a single one trains. Since 2023 BraTS has several scans of some people
    (BraTS-GLI-00002-000 and -001): they stay together, for a network that has seen somebody's head would recognise it.

    Args:
        names: of the patients.
        seed: another seed gives another split.
        fractions: of people in train, val and test; they add up to 1.

    Returns:
        name -> split, sorted by name.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"The fractions of train, val and test must add up to 1: {fractions}.")
    person_of = {name: match["person"] if (match := _TIME_POINT.fullmatch(name)) else name for name in sorted(names)}
    people = sorted(set(person_of.values()), key=lambda person: hashlib.sha256(f"{seed} {person}".encode()).digest())
    # One at least for each, but first for train, then for val.
    test = min(max(round(fractions[2] * len(people)), 1), max(len(people) - 2, 0))
    val = min(max(round(fractions[1] * len(people)), 1), max(len(people) - test - 1, 0))
    split_of = dict.fromkeys(people, "train")
    split_of |= dict.fromkeys(people[:val], "val")
    split_of |= dict.fromkeys(people[val : val + test], "test")
    return {name: split_of[person] for name, person in person_of.items()}
