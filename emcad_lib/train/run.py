"""All that a training run holds in memory, and how it's put together from its settings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderShard, prepare_data_loader
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from emcad_lib.data.slices import Cache, EpochSampler, SliceDataset
from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import PVTEMCAD, create_model
from emcad_lib.model.weights import load_encoder, load_weights
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.processes import several_processors

VALIDATION_BATCH = 32  # speed only: in evaluation mode, slices don't depend on their neighbours in a batch

Batch = tuple[Tensor, Tensor, Tensor]  # slices (B, C, N, N), targets (B, R, N, N), slice numbers (B,)


class NumberedSlices(Dataset):
    """Slices that come with their numbers, so that an error can name the patients of a batch."""

    def __init__(self, slices: SliceDataset) -> None:
        self.slices = slices

    def __len__(self) -> int:
        return len(self.slices)

    def __getitems__(self, numbers: list[int]) -> Batch:
        x, y = self.slices.__getitems__(numbers)
        return x, y, torch.tensor(numbers)

    def describe(self, numbers: Sequence[int]) -> str:
        """The patients and slices of these numbers: "Phantom_003 slices 12, 40; Phantom_007 coronal slice 3"."""
        places = sorted(self.slices.where(number) for number in numbers)
        parts = []
        for (patient, plane), of_patient in groupby(places, key=lambda place: (place.patient, place.plane)):
            indices = [str(place.number) for place in of_patient]
            kind = "slice" if plane == "axial" else f"{plane} slice"
            parts.append(f"{patient} {kind}{'s' if len(indices) > 1 else ''} {', '.join(indices)}")
        return "; ".join(parts)

    def lengths(self) -> list[int]:
        """How many slices each patient has, in the order of the numbers."""
        patients = [self.slices.where(number).patient for number in range(len(self))]
        return [len(list(group)) for _, group in groupby(patients)]


@dataclass
class Run:
    """A run in memory."""

    config: TrainConfig
    accelerator: Accelerator
    train_slices: NumberedSlices
    val_slices: NumberedSlices
    train_batches: DataLoaderShard
    val_batches: DataLoaderShard
    model: PVTEMCAD
    optimizer: torch.optim.Optimizer

    @property
    def network(self) -> PVTEMCAD:
        """The network itself, without what accelerate may have wrapped round it."""
        return self.accelerator.unwrap_model(self.model)

    def start_training(self) -> None:
        """Put the network into training mode; with ``--freeze-norm``, all but batch normalisation."""
        self.model.train()
        if self.config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


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
            f"--mixed-precision {config.mixed_precision} does not work on this machine: {error}"
        ) from error
    if config.mixed_precision != "no" and not accelerator.native_amp:  # accelerate would go on with 32 bits in silence
        raise CourseError(
            f"--mixed-precision {config.mixed_precision} does not work on this machine's {accelerator.device.type}. "
            f"fp16 needs a GPU; most processors can do bf16."
        )
    config.check_parts(accelerator.num_processes)
    if accelerator.num_processes > 1:
        # PyTorch on a processor lays out some gradients otherwise than it then wants to exchange them. It copies them.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    return accelerator


def split_patients(config: TrainConfig, cache: Cache) -> dict[str, list[str]]:
    """The run's patients: those of the cache's "train" and "val" split, as many of the latter as are wanted.

    Raises:
        CourseError: when there are none in one of the two.
    """
    patients = {split: cache.names(split) for split in ("train", "val")}
    patients["val"] = patients["val"][: config.validate_patients or None]
    for split, names in patients.items():
        if not names:
            raise CourseError(
                f"{config.cache}: no patient of this cache is in the split {split!r}. Prepare three patients or more, "
                f"so that each split gets one."
            )
    return patients


def prepare_run(config: TrainConfig, fresh: bool = True) -> Run:
    """Device, data, network and optimiser as they are before the first epoch.

    Args:
        config: the settings.
        fresh: as in `build_model`.

    Raises:
        CourseError: as `start_accelerator`, `split_patients` and `build_model`.
    """
    accelerator = start_accelerator(config)
    cache = Cache(config.cache)
    shape = (config.image_size, config.modalities, config.regions)
    patients = split_patients(config, cache)
    train_slices = NumberedSlices(SliceDataset(cache, "train", *shape, patients["train"], config.planes))
    # One plane is enough to follow the training by, and holds every voxel once.
    val_slices = NumberedSlices(SliceDataset(cache, "val", *shape, patients["val"], config.planes[:1]))
    sampler = EpochSampler(len(train_slices), config.slices_per_epoch, config.seed)
    train_batches = DataLoader(
        train_slices,
        config.batch_size,
        sampler=sampler,
        drop_last=_last_is_too_small(config, len(sampler), accelerator.num_processes),
        collate_fn=_whole_batch,
    )
    val_batches = DataLoader(val_slices, VALIDATION_BATCH, collate_fn=_whole_batch)
    model = build_model(config, fresh)
    kind = accelerator.device.type
    if accelerator.num_processes > 1 and kind == "cuda" and not config.freeze_norm:
        # Batch normalisation over the slices of all processes; PyTorch has it for GPUs only. timm's converter knows
        # timm's own layers as well. Names of weights stay.
        model = convert_sync_batchnorm(model)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=kind in ("cpu", "cuda"),  # one call for all weights
    )
    # Every process reads whole batches, varies them alike, and takes its part then: so each slice is varied in the same
    # way however many processes there are. accelerate would deal out the slices, and even out odd batches. Of 16 slices
    # of 224 pixels, reading took 0.01 s, varying 0.16 s, and the passes through B0 4.7 s (one core).
    train_batches = prepare_data_loader(
        train_batches, accelerator.device, num_processes=1, process_index=0, put_on_device=True
    )
    prepared = accelerator.prepare(val_batches, model, optimizer)
    return Run(config, accelerator, train_slices, val_slices, train_batches, *prepared)


def _last_is_too_small(config: TrainConfig, slices: int, processes: int) -> bool:
    """Whether an epoch's last batch is to be left out.

    A batch of one slice would make batch normalisation compare a slice with itself. Larger ones stay, so that an epoch
    has the same slices whatever the batch size; but at 32 pixels no part of a batch may be one slice.
    """
    left = slices % config.batch_size
    if not left or slices < config.batch_size:
        return False
    return left == 1 or (config.smallest_part(left, processes) <= 1 and not config.one_slice_is_enough)


def build_model(config: TrainConfig, fresh: bool = True) -> PVTEMCAD:
    """The network that the settings describe: random, or from ImageNet, or from weights of an earlier run.

    Args:
        config: the settings.
        fresh: False where a checkpoint's weights follow anyway, and none need to be fetched to start from.

    Raises:
        CourseError: for an encoder that can't be built, and for weights that can't be had or don't fit.
    """
    set_seed(config.seed)
    model = create_model(
        config.encoder,
        num_classes=len(config.regions),
        in_channels=len(config.modalities),
        pretrained=fresh and config.pretrained and not config.encoder_weights,
        drop_path=config.drop_path,
        variant=config.variant,
    )
    if fresh and config.encoder_weights:
        load_encoder(model, config.encoder_weights)
    if fresh and config.weights:
        _start_from(model, config.weights)
    return model


def _start_from(model: PVTEMCAD, path: str | Path) -> None:
    earlier = load_weights(path)
    for name in ("encoder", "num_classes", "in_channels", "kernel_sizes", "expansion", "activation", "variant"):
        theirs, ours = getattr(earlier.config, name), getattr(model.config, name)
        if theirs != ours:
            raise CourseError(f"{path}: these weights are for a network with {name} {theirs}, this run has {ours}.")
    model.load_state_dict(earlier.state_dict())


def _whole_batch(batch: Any) -> Any:
    """The dataset gives whole batches: there is nothing left to collate."""
    return batch
