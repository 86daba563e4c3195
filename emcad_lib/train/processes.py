"""Several processes that train together: which one speaks and writes, and how an error in one ends all.

``torchrun --nproc-per-node 2 -m emcad_lib.train ...`` starts the same command twice. Each process has the same network
and sees its part of each batch; accelerate adds up their gradients. Files, progress bars and messages come from process
0 alone, the main process. All need to see the same cache and the same folder of runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from emcad_lib.files import CourseError

Answer = TypeVar("Answer")


class StoppedElsewhereError(CourseError):
    """Another process has an error, and says it. This one just ends."""


def processes() -> PartialState:
    """This process among all of them; a process that was started alone is the main one of one."""
    return PartialState(cpu=several_processors())


def several_processors() -> bool:
    """Whether processes share the work without a GPU. accelerate has to be told: by itself, it takes each for alone."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()


def is_main() -> bool:
    """Whether this is the main process. Known before the processes have found each other."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def together() -> Iterator[None]:
    """A block that ends well in all processes, or in none. They wait for each other at its end.

    Raises:
        CourseError: in the first process that had an error, this error; in the others `StoppedElsewhereError`.
    """
    me = processes()
    if me.num_processes == 1:
        yield
        return
    mine = None
    try:
        yield
    except CourseError as error:
        mine = error
    failed: list[bool] = gather_object([mine is not None])
    if not any(failed):
        return
    if mine is not None and failed.index(True) == me.process_index:
        raise mine
    raise StoppedElsewhereError("Another process has stopped the run, and says why.")


def from_main(make: Callable[[], Answer]) -> Answer:
    """What the main process makes of a question, handed to all. Only there ``make`` is called.

    Raises:
        CourseError: as ``make``, and as in `together`.
    """
    answer: list[Any] = [None]
    with together():
        if processes().is_main_process:
            answer = [make()]
    return broadcast_object_list(answer)[0]
