"""An update's batch in parts: one after the other to save memory, and side by side in several processes.

The network may see an update's slices a few at a time. As long as each part's loss counts by its share of the slices,
the parts' gradients add up to the gradient of the whole batch.
"""

from __future__ import annotations

import math

Part = tuple[slice, float]  # which slices of the batch, and their share of it


def largest_part(batch_size: int, accumulate: int = 1, processes: int = 1) -> int:
    """How many slices of a full batch the network sees at once at most. This is what decides about memory."""
    return math.ceil(batch_size / (accumulate * processes))


def smallest_part(slices: int, largest: int, processes: int = 1) -> int:
    """How many slices the smallest part of a batch has. 0 where there are fewer slices than parts."""
    return slices // _count(slices, largest, processes)


def split_batch(slices: int, largest: int, processes: int = 1, process: int = 0) -> list[Part]:
    """The parts that one process takes, one after the other.

    There are as few parts as possible, as many in each process, and they are as equal as possible: 25 slices in parts
    of 7 at most are 6, 6, 6 and 7, not 7, 7, 7 and 4, because batch normalisation is the poorer the fewer slices it
    sees. A short last batch of an epoch has fewer parts than the others.

    Args:
        slices: in the batch.
        largest: how many slices a part may have.
        processes: how many processes share the batch.
        process: the number of this one, from 0.
    """
    count = _count(slices, largest, processes)
    edges = [part * slices // count for part in range(count + 1)]
    parts = [(slice(start, stop), (stop - start) / slices) for start, stop in zip(edges, edges[1:], strict=False)]
    rounds = count // processes
    return parts[process * rounds : (process + 1) * rounds]


def _count(slices: int, largest: int, processes: int) -> int:
    return processes * math.ceil(slices / (largest * processes))
