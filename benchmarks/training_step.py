"""How fast is a training step? python benchmarks/training_step.py [--encoder pvt_v2_b0] [--image-size 224] [--out FILE]

A step is what the training does with each batch: forward, MUTATION loss, backward, update. The recipe of the course is
measured against plain PyTorch in the same run: 32 bits, the usual order in memory, AdamW one weight after the other,
and the loss as a loop over the 15 subsets. In between, one thing after the other is taken over from the recipe; after
it stand the recipe with 16 bits, and with --compile compiled (which takes minutes).

The ways take turns, a few steps each. The first step of a turn doesn't count: it finds memory as another network has
left it. All start from the same weights and see the same batch with the same random branches left out, so that their
losses should agree; "loss_differs" is the largest difference, as a share of plain PyTorch's loss. Augmentation and
loading aren't part of a step: see loading.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from emcad_lib.files import CourseError, replacing
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.learner import build_model, prepare_learner, take_step
from emcad_lib.train.losses import mutation_loss, segmentation_loss

PLAIN, RECIPE = "plain PyTorch", "recipe: + channels together in memory"
TURNS = 3

Step = Callable[[Tensor, Tensor], float]
Loss = Callable[[Sequence[Tensor], Tensor], Tensor]


def loop_over_subsets(maps: Sequence[Tensor], target: Tensor) -> Tensor:
    """MUTATION as one would write it down first: 15 sums, and 15 losses of them."""
    chosen = [subset for size in range(1, len(maps) + 1) for subset in combinations(maps, size)]
    return torch.stack([segmentation_loss(sum(subset[1:], subset[0]), target) for subset in chosen]).sum()


def settings(encoder: str, **changed: Any) -> TrainConfig:
    """The recipe's settings. A step needs neither data nor a folder."""
    return TrainConfig(cache="", runs="", name="step", encoder=encoder, **changed)


def build_plain_step(encoder: str, loss: Loss = loop_over_subsets, fused: bool = False) -> Step:
    """A step of plain PyTorch, from the recipe's first weights and with its learning rate."""
    config = settings(encoder)
    model = build_model(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused, foreach=False
    )

    def step(x: Tensor, y: Tensor) -> float:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def build_step(
    encoder: str = "pvt_v2_b0", image_size: int = 224, batch_size: int = 6, compiled: bool = False, **changed: Any
) -> Step:
    """A function step(x, y) that does one training step of the recipe and returns the loss.

    Args:
        encoder: by timm's name for it.
        image_size: H and W of x.
        batch_size: B.
        compiled: whether torch.compile is to make one kernel of many.
        changed: other settings of `TrainConfig`.

    Returns:
        step(x, y), with x (B, 3, H, W) and y (B, 1, H, W).
    """
    learner = prepare_learner(settings(encoder, image_size=image_size, batch_size=batch_size, **changed))
    learner.start_training()
    if compiled:
        learner.model.compile(dynamic=False)
    return lambda x, y: take_step(learner, x, y)


def measure(steps: dict[str, Step], image_size: int, batch_size: int, repeats: int) -> pd.DataFrame:
    """A row for each way: the median of its seconds, how it compares with plain PyTorch, and whether the losses agree.

    Args:
        steps: the ways, plain PyTorch's among them.
        image_size: H and W of the batch, which is random.
        batch_size: B.
        repeats: steps of a turn that count.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
    y = (torch.rand(batch_size, 1, image_size, image_size, generator=generator) < 0.05).float()
    rows = []
    for turn in range(TURNS):
        for way, step in steps.items():
            for number in range(repeats + 1):
                torch.manual_seed(turn * (repeats + 1) + number)  # which branches are left out
                began, worked = time.perf_counter(), time.process_time()
                loss = step(x, y)
                seconds, processor = time.perf_counter() - began, time.process_time() - worked
                rows.append((way, number > 0, loss, seconds, processor))
    taken = pd.DataFrame(rows, columns=["way", "counts", "loss", "seconds", "processor_seconds"])
    losses = {way: np.array(group) for way, group in taken.groupby("way", sort=False)["loss"]}
    counting = taken[taken["counts"]].groupby("way", sort=False)
    table = counting[["seconds", "processor_seconds"]].median()
    table["times_as_fast"] = table.loc[PLAIN, "seconds"] / table["seconds"]
    table["images_per_second"] = batch_size / table["seconds"]
    table["loss_differs"] = [np.abs(losses[way] / losses[PLAIN] - 1).max() for way in table.index]
    return table.reset_index()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Time a training step against plain PyTorch.")
    parser.add_argument("--encoder", default="pvt_v2_b0")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5, help="steps of each turn that count (default: 5)")
    parser.add_argument("--compile", action="store_true", help="try torch.compile as well")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        parser.error("--repeats is 1 or more")
    size = options.encoder, options.image_size, options.batch_size
    try:
        steps = {
            PLAIN: build_plain_step(options.encoder),
            "+ loss in one pass": build_plain_step(options.encoder, mutation_loss),
            "+ AdamW fused": build_plain_step(options.encoder, mutation_loss, fused=True),
            RECIPE: build_step(*size),
            "recipe in bf16": build_step(*size, mixed_precision="bf16"),
        }
        if options.compile:
            steps["recipe, compiled"] = build_step(*size, compiled=True)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    table = measure(steps, options.image_size, options.batch_size, options.repeats).assign(
        encoder=options.encoder,
        image_size=options.image_size,
        batch_size=options.batch_size,
        threads=torch.get_num_threads(),
        load=round(os.getloadavg()[0], 1),
    )
    print(table.round(3).to_string(index=False))
    if options.out:
        with replacing(options.out) as beside:
            table.to_csv(beside, index=False, float_format="%.5g")
    return 0


if __name__ == "__main__":
    sys.exit(main())
