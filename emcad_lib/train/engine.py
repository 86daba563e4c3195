"""The training loop: one epoch after the other, each followed by a validation and a checkpoint.

Everything random in an epoch is drawn from (seed, epoch): which slices in which order, how they are varied, which of
the encoder's branches are left out. So a run that was interrupted goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from accelerate.utils import broadcast, set_seed
from torch import Tensor
from tqdm import tqdm

from emcad_lib.data.slices import Cache, augment
from emcad_lib.evaluate.metrics import dice_by_definition
from emcad_lib.files import CourseError, check_place, remove_leftovers
from emcad_lib.progress import progress
from emcad_lib.train import checkpoint
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.learner import take_step
from emcad_lib.train.ledger import STATE_FILE, Ledger, describe_environment, now, open_ledger
from emcad_lib.train.losses import segmentation_loss
from emcad_lib.train.mirror import Mirror
from emcad_lib.train.processes import from_main, processes, together
from emcad_lib.train.run import Run, prepare_run, split_patients
from emcad_lib.train.schedule import learning_rate_at
from emcad_lib.train.trouble import advising_on_memory, no_number


def train(config: TrainConfig, show: bool = True) -> Ledger:
    """Train a network, or go on training it, and return the run's ledger.

    The run's folder then holds run.json and history.csv (see `Ledger`), best.safetensors of the epoch with the highest
    Dice per validation patient, last.safetensors, and last_state.pt to go on from.

    Several processes may call this at once, each with the same settings (see `processes`). Then a batch is shared among
    them, and the main process alone writes and shows.

    Args:
        config: the settings.
        show: whether to show a progress bar.

    Raises:
        CourseError: for a name that is taken, a run to resume that had other settings or data, an empty split, a disk
            that is full, a loss that is no number any more, too little memory. What an earlier epoch has written stays
            as it was.
    """
    mirror, main = Mirror(config), processes().is_main_process
    ledger, begun = from_main(lambda: _open(config, mirror))
    if ledger.finished:
        return ledger
    with together():
        state = checkpoint.load_state(config.folder) if begun else None
        if ledger.rows and state is None:
            raise CourseError(
                f"{config.folder}: {STATE_FILE} is missing, so this run can't go on. Take another --name."
            )
        run = prepare_run(config, fresh=state is None)
        rows, best, seconds = ([], -1.0, 0.0) if state is None else checkpoint.restore(run, state)
        if main:
            _begin(ledger, run, begun, rows)

    for epoch in range(len(rows) + 1, config.epochs + 1):
        if config.patience and _stale_epochs(rows) >= config.patience:
            break
        began = time.perf_counter()
        with _bar(run, epoch, show and main) as bar:
            trained = train_one_epoch(run, epoch, bar, [row["val_loss"] for row in rows])
            bar.set_postfix_str(f"loss {trained['train_loss']:.3f}, validating")
            scores = validate(run)
            bar.set_postfix_str(f"loss {trained['train_loss']:.3f}, Dice {scores['dice_patient']:.3f}")
        row = _add_up(rows, {"epoch": epoch, **trained, **scores})
        rows.append(row)
        is_best = row["dice_patient"] > best
        best = row["dice_patient"] if is_best else best
        seconds += time.perf_counter() - began
        with together():
            if main:
                checkpoint.save_epoch(run, rows, best, seconds, is_best)
                ledger.record(row)
                mirror.update()
    with together():
        if main:
            ledger.finish(seconds)
            mirror.update()
    return from_main(lambda: ledger)


def train_one_epoch(
    run: Run, epoch: int, bar: tqdm | None = None, val_losses: Sequence[float] = ()
) -> dict[str, float]:
    """Show the network every slice that the sampler draws, and after each batch take one step down the loss.

    Args:
        run: the run.
        epoch: its number, from 1.
        bar: a progress bar, moved on by one for each batch.
        val_losses: of the epochs before, which the schedule may go by.

    Returns:
        This epoch's train_loss, updates, samples, seconds, learning_rate and images_per_second.

    Raises:
        CourseError: when the loss is no finite number; it names the patients and slices of the batch. When memory
            doesn't suffice; it names the ``--accumulate`` that helps.
    """
    config, accelerator = run.config, run.accelerator
    seed = _epoch_seed(config.seed, epoch)
    set_seed(seed, device_specific=True)  # decides which branches drop_path leaves out, others in each process
    generator = torch.Generator(accelerator.device).manual_seed(seed)
    run.train_batches.set_epoch(epoch)  # not the sampler's own: accelerate would count over it, from 0
    # Here, not once before the first epoch: validation has put the network into evaluation mode, in which batch
    # normalisation no longer follows the data.
    run.start_training()

    batches = len(run.train_batches)
    losses, samples = 0.0, 0
    began = time.perf_counter()
    for step, (x, y, numbers) in enumerate(run.train_batches):
        rate = learning_rate_at(config, (epoch - 1) * batches + step, config.epochs * batches, val_losses)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        with advising_on_memory(config, epoch, accelerator.num_processes):
            if config.augment:
                x, y = augment(x, y, generator, config.variations, 2 * config.neighbours + 1)
            loss = take_step(run, x, y)
            if not math.isfinite(loss):
                with together():  # all processes know: one says it
                    raise no_number(run, f"Epoch {epoch}, batch {step + 1}", loss, x, y, numbers.tolist())

        losses, samples = losses + loss * len(x), samples + len(x)
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
    run.predictor.eval()  # batch normalisation uses what it has learned, drop_path leaves nothing out
    for buffer in run.predictor.buffers():  # batch normalisation's averages are each process' own, on processors
        broadcast(buffer)
    losses, found, truth = 0.0, [], []
    for x, y, _ in run.val_batches:  # dealt out to the processes, and gathered in order
        p1, y = run.accelerator.gather_for_metrics((run.predictor(x)[-1].float(), y))  # (B, R, N, N)
        if not run.accelerator.is_main_process:
            continue
        losses += segmentation_loss(p1, y).item() * len(p1)
        found.append((p1 > 0).cpu())  # a logit above 0 is a probability above one half
        truth.append((y > 0.5).cpu())
    return from_main(lambda: _score(run, losses, torch.cat(found), torch.cat(truth)))


def _score(run: Run, losses: float, found: Tensor, truth: Tensor) -> dict[str, float]:
    """Scores of all validation slices: the sum of their losses, and masks (S, R, N, N)."""
    lengths = run.val_slices.lengths()
    found_by_patient = found.split(lengths)  # each (S, R, N, N)
    truth_by_patient = truth.split(lengths)
    scores = [
        dice_by_definition(
            [mask[:, region] for mask in found_by_patient], [mask[:, region] for mask in truth_by_patient]
        )
        for region in range(len(run.config.regions))
    ]
    means = {f"dice_{name}": float(np.mean([score[name] for score in scores])) for name in scores[0]}
    return {"val_loss": losses / sum(lengths), **means}


def _open(config: TrainConfig, mirror: Mirror) -> tuple[Ledger, bool]:
    """The run's ledger, and whether the run had begun before. Only files are looked at here, so it's quick."""
    check_place(config.folder, "--runs", is_folder=True)
    cache = Cache(config.cache)
    mirror.bring_back()
    ledger = open_ledger(config, {"manifest_sha256": cache.hash, **split_patients(config, cache)})
    mirror.check(ledger)
    remove_leftovers(config.folder, older_than=0)  # of a life that was killed, at its very start or its very end even
    if ledger.finished and mirror.is_behind():
        mirror.update()
    return ledger, "parameters" in ledger.run  # a new one doesn't know the network yet


def _begin(ledger: Ledger, run: Run, begun: bool, rows: list[dict[str, float]]) -> None:
    """Write down what a run starts with, or goes on with after the epochs ``rows``."""
    environment = describe_environment(run.accelerator.device, run.accelerator.num_processes)
    if begun:
        ledger.run["resumed"].append({"at": now(), **environment})
    else:
        ledger.run |= {"parameters": sum(weight.numel() for weight in run.network.parameters()), **environment}
    ledger.begin(rows)


def _stale_epochs(rows: Sequence[dict[str, float]]) -> int:
    """How many epochs have gone by since the best one."""
    scores = [row["dice_patient"] for row in rows]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def _add_up(rows: list[dict[str, float]], epoch: dict[str, float]) -> dict[str, float]:
    """The history's row for an epoch: what it counts is counted from the start of the run."""
    before = rows[-1] if rows else {}
    return epoch | {name: before.get(name, 0) + epoch[name] for name in ("updates", "samples", "seconds")}


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _bar(run: Run, epoch: int, show: bool) -> tqdm:
    if not show:
        return tqdm(disable=True)
    return progress(label=f"epoch {epoch}/{run.config.epochs}", total=len(run.train_batches), unit="batch")
