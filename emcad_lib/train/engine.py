"""The training loop: one epoch after the other, each followed by a validation and a checkpoint.

Everything random in an epoch is drawn from (seed, epoch): which slices in which order, how they are varied, which of
the encoder's branches are left out. So a run that was interrupted goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from accelerate.utils import set_seed
from tqdm import tqdm

from emcad_lib.data.slices import Cache, augment
from emcad_lib.evaluate.metrics import dice_by_definition
from emcad_lib.files import CourseError
from emcad_lib.progress import progress
from emcad_lib.train import checkpoint
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.ledger import Ledger, describe_environment, is_run, now, open_ledger
from emcad_lib.train.losses import mutation_loss, segmentation_loss
from emcad_lib.train.run import Run, prepare_run, split_patients

WARM_UP = 0.05  # share of a run's updates over which the cosine schedule rises to its full learning rate


def train(config: TrainConfig, show: bool = True) -> Ledger:
    """Train a network, or go on training it, and return the run's ledger.

    The run's folder then holds run.json and history.csv (see `Ledger`), best.safetensors of the epoch with the highest
    Dice per validation patient, last.safetensors, and last_state.pt to go on from.

    Args:
        config: the settings.
        show: whether to show a progress bar.

    Raises:
        CourseError: for a name that is taken, a run to resume that had other settings or data, an empty split, a disk
            that is full, a loss that is no number any more. What an earlier epoch has written stays as it was.
    """
    cache = Cache(config.cache)
    ledger = open_ledger(config, {"manifest_sha256": cache.hash, **split_patients(config, cache)})
    begun = is_run(config.folder)
    state = checkpoint.load_state(config.folder) if begun else None
    if ledger.finished and state is not None and state["epoch"] >= config.epochs:
        return ledger

    run = prepare_run(config, fresh=state is None)
    environment = describe_environment(run.accelerator.device)
    if begun:
        checkpoint.remove_leftovers(config.folder)
        ledger.run["resumed"].append({"at": now(), **environment})
    else:
        ledger.run |= {"parameters": sum(weight.numel() for weight in run.network.parameters()), **environment}
    rows, best, seconds = ([], -1.0, 0.0) if state is None else checkpoint.restore(run, state)
    ledger.begin(rows)

    for epoch in range(len(rows) + 1, config.epochs + 1):
        began = time.perf_counter()
        with _bar(run, epoch, show) as bar:
            trained = train_one_epoch(run, epoch, bar)
            bar.set_postfix_str(f"loss {trained['train_loss']:.3f}, validating")
            scores = validate(run)
            bar.set_postfix_str(f"loss {trained['train_loss']:.3f}, Dice {scores['dice_patient']:.3f}")
        row = _add_up(rows, {"epoch": epoch, **trained, **scores})
        rows.append(row)
        if row["dice_patient"] > best:
            best = row["dice_patient"]
            checkpoint.save_checkpoint(run, checkpoint.BEST_FILE, row)
        seconds += time.perf_counter() - began
        checkpoint.save_state(config.folder, checkpoint.capture(run, rows, best, seconds))
        checkpoint.save_checkpoint(run, checkpoint.LAST_FILE, row)
        ledger.record(row)
    ledger.finish(seconds)
    return ledger


def train_one_epoch(run: Run, epoch: int, bar: tqdm | None = None) -> dict[str, float]:
    """Show the network every slice that the sampler draws, and after each batch take one step down the loss.

    Args:
        run: the run.
        epoch: its number, from 1.
        bar: a progress bar, moved on by one for each batch.

    Returns:
        This epoch's train_loss, updates, samples, seconds, learning_rate and images_per_second.

    Raises:
        CourseError: when the loss is no finite number; it names the patients and slices of the batch.
    """
    config, device = run.config, run.accelerator.device
    seed = _epoch_seed(config.seed, epoch)
    set_seed(seed)  # decides which branches drop_path leaves out
    generator = torch.Generator(device).manual_seed(seed)
    run.train_batches.set_epoch(epoch)  # not the sampler's own: accelerate would count over it, from 0
    # Here, not once before the first epoch: validation has put the network into evaluation mode, in which batch
    # normalisation no longer follows the data.
    run.model.train()

    batches = len(run.train_batches)
    losses, samples = 0.0, 0
    began = time.perf_counter()
    for step, (x, y, numbers) in enumerate(run.train_batches):
        rate = learning_rate_at(config, (epoch - 1) * batches + step, config.epochs * batches)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        if config.augment:
            x, y = augment(x, y, generator)
        maps = run.model(x)  # [p4, p3, p2, p1], each (B, R, N, N)
        loss = mutation_loss(maps, y)
        if not math.isfinite(value := loss.item()):
            raise CourseError(_no_number(run, epoch, step, value, numbers.tolist()))
        run.optimizer.zero_grad()
        run.accelerator.backward(loss)
        run.optimizer.step()

        losses, samples = losses + value * len(x), samples + len(x)
        if bar is not None:
            bar.set_postfix_str(f"loss {losses / samples:.3f}", refresh=False)
            bar.update()
    seconds = time.perf_counter() - began
    return {
        "train_loss": losses / samples,
        "updates": batches,
        "samples": samples,
        "seconds": seconds,
        "learning_rate": rate,
        "images_per_second": samples / seconds,
    }


@torch.inference_mode()
def validate(run: Run) -> dict[str, float]:
    """Score the network on the validation patients: val_loss and Dice by each definition.

    The slices are scored at the resolution that they are trained at. With several regions, the mean over them.
    """
    run.model.eval()  # batch normalisation uses what it has learned, drop_path leaves nothing out
    losses, found, truth = 0.0, [], []
    for x, y, _ in run.val_batches:
        p1 = run.model(x)[-1].float()  # (B, R, N, N)
        losses += segmentation_loss(p1, y).item() * len(x)
        found.append((p1 > 0).cpu())  # a logit above 0 is a probability above one half
        truth.append((y > 0.5).cpu())
    lengths = run.val_slices.lengths()
    found_by_patient = torch.cat(found).split(lengths)  # each (S, R, N, N)
    truth_by_patient = torch.cat(truth).split(lengths)
    scores = [
        dice_by_definition(
            [mask[:, region] for mask in found_by_patient], [mask[:, region] for mask in truth_by_patient]
        )
        for region in range(len(run.config.regions))
    ]
    means = {f"dice_{name}": float(np.mean([score[name] for score in scores])) for name in scores[0]}
    return {"val_loss": losses / sum(lengths), **means}


def learning_rate_at(config: TrainConfig, update: int, updates: int) -> float:
    """The learning rate of one update (counted from 0) of a run of ``updates``.

    "constant" as in the published training. "cosine" rises in a line over the first updates, while the network is
    still random and steps in a wrong direction do most harm, and then falls along half a cosine to 0, so that the last
    steps are small and settle. It depends on the number of epochs: a run that is resumed with more of them goes on
    at the learning rate that the longer run would have here.
    """
    if config.schedule == "constant":
        return config.learning_rate
    warm_up = math.ceil(WARM_UP * updates)
    if update < warm_up:
        return config.learning_rate * (update + 1) / warm_up
    done = (update - warm_up) / (updates - warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def _add_up(rows: list[dict[str, float]], epoch: dict[str, float]) -> dict[str, float]:
    """The history's row for an epoch: what it counts is counted from the start of the run."""
    before = rows[-1] if rows else {}
    return epoch | {name: before.get(name, 0) + epoch[name] for name in ("updates", "samples", "seconds")}


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _no_number(run: Run, epoch: int, step: int, value: float, numbers: list[int]) -> str:
    return (
        f"Epoch {epoch}, batch {step + 1}: the loss is {value}. The weights of the epoch before are untouched. The "
        f"batch held {run.train_slices.describe(numbers)}. A smaller --learning-rate helps where no slice is at fault."
    )


def _bar(run: Run, epoch: int, show: bool) -> tqdm:
    if not show:
        return tqdm(disable=True)
    return progress(label=f"epoch {epoch}/{run.config.epochs}", total=len(run.train_batches), unit="batch")
