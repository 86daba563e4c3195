"""How long does a network take for a patient? python benchmarks/inference.py PATIENT_DIR [--repeats 5] [--out FILE]

From a patient's normalised images in memory to a mask on the scan's grid, with the shipped weights: axial slices, one
pass, and none of the other test-time steps.

- "usual": what many code bases do, and the baseline. All slices of the scan, one at a time: each channel resampled to
  224 x 224 by cubic splines (scipy), the network in float32, its probabilities resampled back by cubic splines.
- "ours": ``predict`` as it comes. The slices with brain only, in batches, at the pixel size that these weights were
  trained at (96 x 96 of 2 mm).
- "ours at 224": ``predict`` at 224 x 224 of 1 mm, nearly the pixels of the usual way, so that this ratio owes nothing
  to smaller pictures. The weights haven't learnt that size: its mask is as good as its baseline's, not as good as ours.

Beside the seconds stand the processor's seconds, which another program on the machine changes less. The Dice compares a
mask with that of the same network on the same canvas, one slice at a time and unfolded: what the speed costs. The kinds
take turns, so that a slow minute of the machine hits all of them, and medians count.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from emcad_lib import load_weights
from emcad_lib.data.brats import find_patient, read_scan
from emcad_lib.data.prepare import Prepared, dequantise, normalise, prepare_patient
from emcad_lib.data.scan import MODALITIES
from emcad_lib.evaluate.canvas import Canvas
from emcad_lib.evaluate.inference import predict
from emcad_lib.evaluate.known import channels, image_size
from emcad_lib.evaluate.metrics import dice
from emcad_lib.files import CourseError, replacing
from emcad_lib.model.weights import REFERENCE_WEIGHTS

USUAL_SIZE = 224


@torch.inference_mode()
def usual(model: nn.Module, images: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The mask (I, J, K) that the usual way finds in z-scores (4, I, J, K)."""
    chosen = images[channels(model, len(MODALITIES), None)]
    found = np.zeros(images.shape[1:], dtype=bool)
    for number in range(images.shape[-1]):
        small = [resampled(channel[..., number], (USUAL_SIZE, USUAL_SIZE)) for channel in chosen]
        probability = torch.sigmoid(model(torch.from_numpy(np.stack(small))[None])[-1])[0, 0].numpy()
        found[..., number] = resampled(probability, images.shape[1:3]) > 0.5
    return found


def resampled(image: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """A picture (H, W) at another size, by cubic splines."""
    return ndimage.zoom(image, [to / have for to, have in zip(shape, image.shape, strict=True)], order=3)


def ours(model: nn.Module, prepared: Prepared, shape: tuple[int, ...], size: int) -> NDArray[np.bool_]:
    """The mask (I, J, K) that ``predict`` finds."""
    return prepared.restore(predict(model, prepared.images, size)[:, 0] > 0.5, shape)


@torch.inference_mode()
def one_by_one(model: nn.Module, prepared: Prepared, shape: tuple[int, ...], size: int) -> NDArray[np.bool_]:
    """The mask (I, J, K) of the network itself, in float32, one slice at a time."""
    canvas = Canvas.of(prepared.images.shape[2:], (1.0, 1.0), size)
    chosen = channels(model, len(MODALITIES), None)
    found = []
    for image in prepared.images:
        logits = model(canvas.put(torch.from_numpy(dequantise(image[chosen]))[None]))[-1]
        found.append(canvas.take(torch.sigmoid(logits))[0, 0].numpy() > 0.5)
    return prepared.restore(np.stack(found), shape)


def clocked(work: Callable[[], object]) -> dict[str, float]:
    """Seconds by the clock, and seconds of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - began, "processor seconds": time.process_time() - worked}


def measure(patient: Path, repeats: int) -> pd.DataFrame:
    """A row for each way: medians of seconds, how many times faster than the usual way, and the Dice."""
    model = load_weights(REFERENCE_WEIGHTS).eval()
    scan = read_scan(find_patient(patient))
    images, prepared, shape = normalise(scan.images), prepare_patient(scan), scan.images.shape[1:]
    sizes = {"ours": image_size(model, None), f"ours at {USUAL_SIZE}": USUAL_SIZE}
    ways: dict[str, Callable[[], NDArray[np.bool_]]] = {"usual": lambda: usual(model, images)}
    for name, size in sizes.items():
        ways[name] = lambda size=size: ours(model, prepared, shape, size)
    ours(model, prepared, shape, min(sizes.values()))  # the first call of a network takes longer
    runs = [{"way": name, **clocked(work)} for _ in range(repeats) for name, work in ways.items()]
    table = pd.DataFrame(runs).groupby("way", sort=False).median()
    for column in ("seconds", "processor seconds"):
        table[f"times as fast by {column}"] = table.loc["usual", column] / table[column]
    agree = {
        name: dice(ours(model, prepared, shape, size), one_by_one(model, prepared, shape, size))
        for name, size in sizes.items()
    }
    return table.assign(dice=pd.Series(agree), threads=torch.get_num_threads(), load=round(os.getloadavg()[0], 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Time a network on one patient, in memory.")
    parser.add_argument("patient", type=Path, help="one patient's folder, in any BraTS naming")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each kind; the median counts (default: 5)")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error("--repeats is 1 or more")
    try:
        table = measure(arguments.patient, arguments.repeats)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(table.round(4).to_string())
    if arguments.out:
        with replacing(arguments.out) as beside:
            table.to_csv(beside)
    return 0


if __name__ == "__main__":
    sys.exit(main())
