"""What stops a training, and what the reader can do then: a loss that is no number, and too little memory."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emcad_lib.files import CourseError, replacing
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.parts import largest_part
from emcad_lib.train.run import Run

NOT_FINITE_FILE = "not_finite.npz"
# What PyTorch says on a processor, and what oneDNN, which does its convolutions, said under a limit of memory, too.
_SHORTAGES = ("can't allocate memory", "could not create a primitive")


def save_batch(run: Run, x: Tensor, y: Tensor, numbers: Sequence[int]) -> Path:
    """Keep a batch as the network saw it, in the run's folder, and return the file.

    It holds plain arrays: x (B, C, N, N) and y (B, R, N, N), and for each slice its number among the training slices,
    its patient, its plane, and which of the patient's slices in this plane it is.
    """
    path = run.config.folder / NOT_FINITE_FILE
    places = [run.train_slices.slices.where(number) for number in numbers]
    with replacing(path) as beside:
        np.savez(
            beside,
            x=x.float().cpu().numpy(),
            y=y.float().cpu().numpy(),
            numbers=np.array(numbers),
            patients=np.array([place.patient for place in places]),
            planes=np.array([place.plane for place in places]),
            slices=np.array([place.number for place in places]),
        )
    return path


def no_number(run: Run, where: str, loss: float, x: Tensor, y: Tensor, numbers: Sequence[int]) -> CourseError:
    """The error for a loss that is infinite or no number. The batch is kept, for a look at what the network saw.

    Args:
        run: the run.
        where: which epoch and batch.
        loss: its value.
        x: the batch's slices as the network saw them.
        y: their targets.
        numbers: their numbers among the training slices.
    """
    kept = ""
    if run.accelerator.is_main_process:
        try:
            path = save_batch(run, x, y, numbers)
            kept = (
                f"As the network saw it, varied at random, it is kept in {path}: look at it with "
                f"numpy.load({str(path)!r}), which holds x, y, numbers, patients, planes and slices. "
            )
        except (CourseError, OSError) as error:  # a full disk, say: the loss is what the reader has to know of
            kept = f"It could not be kept for a look ({error}). "
    return CourseError(
        f"{where}: the loss is {loss}. The weights of the epoch before are untouched. The batch held "
        f"{run.train_slices.describe(numbers)}. {kept}A smaller --learning-rate helps where no slice is at fault."
    )


@contextmanager
def advising_on_memory(config: TrainConfig, epoch: int, processes: int = 1) -> Iterator[None]:
    """Turn "out of memory" within the block into what to do about it.

    Raises:
        CourseError: naming the ``--accumulate`` that at least halves what the network sees at once.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # PyTorch has an error of its own for GPUs only.
        known = any(words in str(error) for words in _SHORTAGES)
        if not (known or isinstance(error, torch.OutOfMemoryError | MemoryError)):
            raise
        # Else the traceback holds on to the tensors that were too much, and a notebook to the traceback.
        traceback.clear_frames(error.__traceback__)
        reason = str(error).partition("\n")[0]
        raise CourseError(f"{memory_advice(config, epoch, processes)} ({reason})") from error


def memory_advice(config: TrainConfig, epoch: int, processes: int = 1) -> str:
    """What to say when an update of these settings doesn't fit into memory.

    Args:
        config: the settings.
        epoch: in which it happened, from 1.
        processes: how many processes share a batch.
    """

    def parts_of(accumulate: int) -> int:
        return largest_part(config.batch_size, accumulate, processes)

    before, size = config.accumulate, parts_of(config.accumulate)
    said = f"Out of memory, with {size} slice{'s' if size > 1 else ''} of {config.image_size} pixels at once."
    halved = [n for n in range(before + 1, config.batch_size // processes + 1) if parts_of(n) <= size // 2]
    if size <= 2 or not halved:
        return f"{said} Take a smaller --image-size, or a smaller --encoder such as pvt_v2_b0."
    advice = (
        f"{said} The same command with --accumulate {halved[0]} takes {parts_of(halved[0])} at once, and still "
        f"{config.batch_size} for each update."
    )
    if epoch > 1:  # in the first, the run has nothing to lose yet and simply begins anew
        advice += f" It needs another --name, because the epochs before had --accumulate {before}."
    return advice
