"""What learns: a network and its optimiser, on the device and in the precision of the settings; and its steps."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emcad_lib.files import CourseError
from emcad_lib.model.others import create_network
from emcad_lib.model.pvt_emcad import PVTEMCAD, Network
from emcad_lib.model.weights import load_encoder, load_weights
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.losses import boundary_loss, mutation_loss
from emcad_lib.train.parts import split_batch
from emcad_lib.train.processes import several_processors

# What two networks must have in common for one to take over the other's weights.
_SHAPE = ("network", "encoder", "num_classes", "in_channels", "kernel_sizes", "expansion", "activation", "variant")


@dataclass
class Learner:
    """A network in training.

    Attributes:
        config: its settings.
        accelerator: device and precision.
        model: the network, perhaps wrapped by accelerate.
        optimizer: of its weights.
        average: with ``--average``, a second network with the running average of the weights.
    """

    config: TrainConfig
    accelerator: Accelerator
    model: Network
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None

    @property
    def network(self) -> Network:
        """The network itself, without what accelerate may have wrapped round it."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def predictor(self) -> Network:
        """What is validated and stored: the network, or the average of its weights."""
        return self.network if self.average is None else cast(Network, self.average.module)

    def start_training(self) -> None:
        """Put the network into training mode; with ``--freeze-norm``, all but batch normalisation."""
        self.model.train()
        if self.config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def prepare_learner(config: TrainConfig, fresh: bool = True) -> Learner:
    """Device, network and optimiser as they are before the first update.

    Args:
        config: the settings.
        fresh: as in `build_model`.

    Raises:
        CourseError: as `start_accelerator` and `build_model`.
    """
    accelerator = start_accelerator(config)
    model = build_model(config, fresh)
    kind = accelerator.device.type
    if accelerator.num_processes > 1 and kind == "cuda" and not config.freeze_norm:
        # Batch normalisation over the slices of all processes; PyTorch has it for GPUs only. timm's converter knows
        # timm's own layers as well. Names of weights stay.
        model = convert_sync_batchnorm(model)
    # A pixel's channels side by side in memory: depth-wise convolutions go through them up to four times as fast.
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=kind in ("cpu", "cuda"),  # one call for all weights
    )
    average = None
    if config.average:
        mix = get_ema_multi_avg_fn(config.average)
        # Batch normalisation's statistics are copied, not averaged: at the start its variances are a thousand times as
        # large, and after 200 updates an average of them still was ten times too large.
        average = AveragedModel(model, accelerator.device, multi_avg_fn=mix)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Learner(config, accelerator, model, optimizer, average)


def start_accelerator(config: TrainConfig) -> Accelerator:
    """Find the device to run on, and set up mixed precision.

    Raises:
        CourseError: when this machine can't do what the settings ask for.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # else a second run in a notebook has the first's precision
    try:
        accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=several_processors())
    except (ValueError, RuntimeError) as error:
        raise CourseError(
            f"--mixed-precision {config.mixed_precision} does not work on this machine: {error}. Take another, or no."
        ) from error
    if config.mixed_precision != "no" and not accelerator.native_amp:  # accelerate would go on with 32 bits in silence
        raise CourseError(
            f"--mixed-precision {config.mixed_precision} does not work on this machine's {accelerator.device.type}. "
            f"fp16 needs a GPU; most processors can do bf16. Take that, or no."
        )
    config.check_parts(accelerator.num_processes)
    if accelerator.num_processes > 1:
        # PyTorch on a processor lays out some gradients otherwise than it then wants to exchange them. It copies them.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    return accelerator


def build_model(config: TrainConfig, fresh: bool = True) -> Network:
    """The network that the settings describe: random, or from ImageNet, or from weights of an earlier run.

    Args:
        config: the settings.
        fresh: False where a checkpoint's weights follow anyway, and none need to be fetched to start from.

    Raises:
        CourseError: for an encoder that can't be built, and for weights that can't be had or don't fit.
    """
    set_seed(config.seed)
    model = create_network(
        config.network,
        encoder=config.encoder,
        num_classes=len(config.regions),
        in_channels=len(config.modalities) * (2 * config.neighbours + 1),
        pretrained=fresh and config.pretrained and not config.encoder_weights,
        drop_path=config.drop_path,
        variant=config.variant,
        dropout=config.dropout,
    )
    if fresh and config.encoder_weights and isinstance(model, PVTEMCAD):
        load_encoder(model, config.encoder_weights)
    if fresh and config.weights:
        _start_from(model, config.weights)
    return model


def _start_from(model: Network, path: str | Path) -> None:
    earlier = load_weights(path)
    for name in _SHAPE:
        theirs, ours = getattr(earlier.config, name), getattr(model.config, name)
        if theirs != ours:
            raise CourseError(
                f"{path}: these weights are for a network with {name} {theirs}, this run has {ours}. Give the run the "
                f"settings that they were trained with, or take other --weights."
            )
    model.load_state_dict(earlier.state_dict())


def take_step(learner: Learner, x: Tensor, y: Tensor) -> float:
    """One update of the weights, by a batch: forward, loss, backward, step. Returns the loss.

    When the loss is no finite number, the weights stay as they are.

    Args:
        learner: in training mode.
        x: the whole batch, (B, C, N, N), in every process.
        y: its targets, (B, R, N, N).
    """
    learner.optimizer.zero_grad()
    loss = add_gradients(learner, x, y)
    if math.isfinite(loss):
        learner.optimizer.step()
        if learner.average is not None:
            learner.average.update_parameters(learner.network)
    return loss


def add_gradients(learner: Learner, x: Tensor, y: Tensor) -> float:
    """Give every weight the gradient of a batch's loss, and return the loss.

    The batch may be split: into micro-batches, one after the other (--accumulate), and among processes. A part's loss
    counts by its share of the slices, so that the gradients add up to those of the whole batch. accelerate would add
    up micro-batches by itself (`accumulate`), but takes them for equally large and equally many in each update.

    Args:
        learner: in training mode.
        x: the whole batch, (B, C, N, N), in every process.
        y: its targets, (B, R, N, N).
    """
    accelerator, count = learner.accelerator, learner.accelerator.num_processes
    parts = split_batch(len(x), learner.config.largest_part(count), count, accelerator.process_index)
    total = torch.zeros((), device=accelerator.device)
    for number, (part, share) in enumerate(parts, start=1):
        if not share:  # fewer slices than parts: look at any one, as often as the other processes, and don't count it
            part = slice(1)
        # Processes exchange their gradients during the last backward pass only.
        with nullcontext() if number == len(parts) else accelerator.no_sync(learner.model):
            maps = learner.model(x[part])  # [p4, p3, p2, p1], each (b, R, N, N)
            loss = mutation_loss(maps, y[part])
            if learner.config.boundary:
                loss = loss + learner.config.boundary * boundary_loss(maps[-1], y[part])
            loss = share * loss
            accelerator.backward(loss * count)  # the exchange takes the mean over processes, where the sum is wanted
        total += loss.detach()
    return float(accelerator.reduce(total))
