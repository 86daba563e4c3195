"""Everything that can be chosen about a training run: one dataclass, which is the command line as well."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emcad_lib.data.augment import STANDARD, VARIATIONS
from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.labels import REGIONS
from emcad_lib.data.planes import PLANES
from emcad_lib.files import CourseError
from emcad_lib.model.ablate import COMPLETE, VARIANTS
from emcad_lib.model.others import EMCAD, NETWORKS
from emcad_lib.profiles import PROFILES
from emcad_lib.train.parts import largest_part, smallest_part

SCHEDULES = ("cosine", "constant", "plateau")
PRECISIONS = ("no", "fp16", "bf16")
_QUICK = PROFILES["quick"]


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. The defaults are those of the quick profile.

    Raises:
        CourseError: for a setting that can't be right, naming it.
    """

    cache: str | Path = field(metadata={"help": "folder of prepared slices, written by data_scripts/preprocess.py"})
    runs: str | Path = field(metadata={"help": "folder of all runs"})
    name: str = field(metadata={"help": "name of this run, and of its folder among the runs"})
    network: str = _setting(EMCAD, f"which network: {', '.join(NETWORKS)}")
    encoder: str = _setting(_QUICK.encoder, "encoder, by timm's name for it")
    variant: str = _setting(COMPLETE, f"of the decoder, for ablations: {', '.join(VARIANTS)}")
    batch_size: int = _setting(16, "slices for each update, over all processes")
    accumulate: int = _setting(1, "micro-batches that an update's slices are split into, to save memory")
    epochs: int = _setting(_QUICK.epochs, "times through the training slices")
    seed: int = _setting(0, "start of every random choice")
    image_size: int = _setting(_QUICK.image_size, "pixels along each side of a slice, a multiple of 32")
    slices_per_epoch: int = _setting(0, "training slices drawn in an epoch; 0: all of them")
    learning_rate: float = _setting(_QUICK.learning_rate, "size of AdamW's steps, at its highest")
    schedule: str = _setting(
        "cosine",
        "how the learning rate goes: cosine (a short rise, then down to 0), constant, or plateau (smaller whenever the "
        "validation loss stops falling)",
    )
    warm_up: float = _setting(0.05, "share of the updates over which the cosine schedule's learning rate rises")
    weight_decay: float = _setting(1e-4, "AdamW's pull of the weights towards 0")
    modalities: tuple[str, ...] = _setting(("flair", "t1ce", "t2"), "MRI modalities that the network sees")
    neighbours: int = _setting(0, "slices above and below that it sees as well, as further channels")
    regions: tuple[str, ...] = _setting(("whole",), "tumour regions that it predicts")
    planes: tuple[str, ...] = _setting(
        ("axial",), "planes in which the training slices are cut; validated in the first"
    )
    pretrained: bool = _setting(_QUICK.pretrained, "start the encoder from its ImageNet weights, which timm downloads")
    encoder_weights: str = _setting("", "local file of the encoder's ImageNet weights, in place of the download")
    weights: str = _setting("", "weights file of this course to start the whole network from")
    drop_path: float = _setting(0.1, "share of the encoder's residual branches left out at random")
    dropout: float = _setting(0.0, "share of channels left out at random before each segmentation head")
    average: float = _setting(
        0.0, "use a running average of the weights, of which each update keeps this share; 0: the weights themselves"
    )
    augment: bool = _setting(True, "vary the training slices at random")
    variations: tuple[str, ...] = _setting(STANDARD, f"in which ways: {', '.join(VARIATIONS)}")
    boundary: float = _setting(0.0, "weight of the boundary loss, beside MUTATION")
    freeze_norm: bool = _setting(False, "keep batch normalisation's statistics as they are at the start")
    mixed_precision: str = _setting("no", "no, or 16-bit numbers where they do no harm: fp16 or bf16")
    patience: int = _setting(0, "stop after so many epochs without a better Dice per patient; 0: never")
    validate_patients: int = _setting(0, "validation patients to score after each epoch; 0: all of them")
    resume: bool = _setting(True, "go on where a run of this name stopped, if there is one")
    mirror: str = _setting("", "folder to copy the run to after each epoch, and to bring it back from when it's gone")

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "epochs"):
            self._demand(name, getattr(self, name) >= 1, "1 or more")
        for name in ("seed", "slices_per_epoch", "validate_patients", "weight_decay", "neighbours", "patience"):
            self._demand(name, getattr(self, name) >= 0, "0 or more")
        self._demand("learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        self._demand("boundary", 0 <= self.boundary < math.inf, "0 or more")
        for name in ("drop_path", "dropout", "average", "warm_up"):
            self._demand(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._demand("network", self.network in NETWORKS, f"one of {', '.join(NETWORKS)}")
        self._demand("variant", self.variant in VARIANTS, f"one of {', '.join(VARIANTS)}")
        self._demand("schedule", self.schedule in SCHEDULES, " or ".join(SCHEDULES))
        self._demand("mixed_precision", self.mixed_precision in PRECISIONS, " or ".join(PRECISIONS))
        lists = {"variations": VARIATIONS, "modalities": MODALITIES, "planes": PLANES, "regions": REGIONS}
        for name, known in lists.items():
            wanted = f"one or more of {', '.join(known)}, each once and as a word of its own"
            self._demand(name, _some_of(getattr(self, name), known), wanted)
        self._demand("name", re.fullmatch(r"\w[\w .-]*", self.name) is not None, "letters, digits, '-', '_', '.' only")
        self._demand(
            "image_size",
            self.image_size > 0 and self.image_size % 32 == 0,
            "a multiple of 32, such as 96 or 224, because the encoder halves the slice five times",
        )
        if self.network != EMCAD:
            for name in ("pretrained", "encoder_weights", "dropout"):  # which it would ignore in silence
                self._demand(name, not getattr(self, name), f"left out with --network {self.network}")
            self._demand("variant", self.variant == COMPLETE, f"left out with --network {self.network}")
        self.check_parts()

    def check_parts(self, processes: int = 1) -> None:
        """Make sure that the batch can be split among micro-batches and processes.

        Raises:
            CourseError: when there are too few slices for it.
        """
        if self.accumulate * processes > self.batch_size:
            among = f" in each of {processes} processes" if processes > 1 else ""
            raise CourseError(
                f"--accumulate {self.accumulate}{among} needs a slice for each micro-batch, and --batch-size is "
                f"{self.batch_size}. Take a smaller --accumulate, or a larger --batch-size."
            )
        if self.smallest_part(self.batch_size, processes) == 1 and not self.one_slice_is_enough:
            raise CourseError(
                "One slice of 32 pixels leaves a single number per channel at the network's coarsest stage, and batch "
                "normalisation can't tell a spread from one number. Take two slices or more at a time (--batch-size, "
                "--accumulate), --image-size 64 or --freeze-norm."
            )

    def largest_part(self, processes: int = 1) -> int:
        """How many slices the network sees at once at most."""
        return largest_part(self.batch_size, self.accumulate, processes)

    def smallest_part(self, slices: int, processes: int = 1) -> int:
        """How many slices of a batch of ``slices`` the network sees at once at least."""
        return smallest_part(slices, self.largest_part(processes), processes)

    @property
    def one_slice_is_enough(self) -> bool:
        """Whether a single slice can be trained on."""
        return self.freeze_norm or self.image_size > 32

    def _demand(self, name: str, fulfilled: bool, wanted: str) -> None:
        if not fulfilled:
            raise CourseError(f"--{name.replace('_', '-')} must be {wanted}, not {getattr(self, name)!r}.")

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return Path(self.runs) / self.name

    def settings(self) -> dict[str, Any]:
        """What the ledger keeps: everything that shapes the result, and no path of anyone's machine."""
        settings = dataclasses.asdict(self)
        for name in ("runs", "resume", "mirror"):  # where it lies is not what it is
            del settings[name]
        for name in ("cache", "weights", "encoder_weights"):
            settings[name] = Path(settings[name]).name
        return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def parse_arguments(argv: Sequence[str] | None = None) -> TrainConfig:
    """The command line as a configuration: ``batch_size`` is ``--batch-size``, and so on.

    Raises:
        CourseError: for a setting that can't be right.
    """
    parser = argparse.ArgumentParser(
        prog="python -m emcad_lib.train",
        allow_abbrev=False,
        description="Train EMCAD on prepared slices. The run's folder holds its ledger (run.json, history.csv) and its "
        "weights, of the best epoch and of the last.",
    )
    for setting in dataclasses.fields(TrainConfig):
        _add_flag(parser, setting)
    settings: dict[str, Any] = {}
    for name, value in vars(parser.parse_args(argv)).items():
        settings[name] = tuple(value) if isinstance(value, list) else value
    return TrainConfig(**settings)


def _add_flag(parser: argparse.ArgumentParser, setting: dataclasses.Field[Any]) -> None:
    flag, text, default = "--" + setting.name.replace("_", "-"), setting.metadata["help"], setting.default
    if default is dataclasses.MISSING:
        parser.add_argument(flag, required=True, help=text)
    elif isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
    elif isinstance(default, tuple):
        parser.add_argument(flag, nargs="+", default=default, help=f"{text} (default: {' '.join(default)})")
    else:
        shown = f" (default: {default})" if default != "" else ""
        parser.add_argument(flag, type=type(default), default=default, help=text + shown)


def _some_of(chosen: Sequence[str], known: Sequence[str]) -> bool:
    return bool(chosen) and set(chosen) <= set(known) and len(set(chosen)) == len(chosen)
