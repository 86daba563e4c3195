"""What a model's metadata say about how it was trained: modalities, regions, planes, image size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torch import nn

from emcad_lib.data.brats import MODALITIES
from emcad_lib.data.labels import REGIONS
from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import ModelConfig


def known_regions(model: nn.Module) -> list[str]:
    """Which regions a model predicts, in the order of its outputs, as its metadata say.

    Raises:
        CourseError: they don't, or not of REGIONS.
    """
    return names(model, "regions", None, REGIONS)


def channels(model: nn.Module, count: int, modalities: Sequence[str] | None) -> list[int] | slice:
    """Which of ``count`` channels the model takes, in its order."""
    if count != len(MODALITIES):
        return slice(None)
    chosen = names(model, "modalities", modalities, MODALITIES)
    config = getattr(model, "config", None)
    wanted = len(chosen) * (2 * neighbours(model) + 1)
    if isinstance(config, ModelConfig) and wanted != config.in_channels:
        raise CourseError(
            f"The network takes {config.in_channels} channels, but {len(chosen)} modalities are named "
            f"({', '.join(chosen)}). Name those that it was trained on, with modalities=[...]."
        )
    return [MODALITIES.index(name) for name in chosen]


def neighbours(model: nn.Module) -> int:
    """How many slices below and above a slice the network sees as well; 0 where its metadata say nothing of it."""
    return int(getattr(model, "metadata", {}).get("neighbours", 0))


def names(model: nn.Module, key: str, given: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """``given`` or what the model's metadata hold under ``key``, refused unless each is one of ``known``."""
    names = stored(model, key) if given is None else given
    listed = isinstance(names, list | tuple) and len(names) > 0 and all(name in known for name in names)
    if not listed or len(set(names)) < len(names):
        raise CourseError(f"{key} must be one or more of {', '.join(known)}, each once, in a list, not {names!r}.")
    return list(names)


def image_size(model: nn.Module, given: int | None) -> int:
    size = stored(model, "image_size") if given is None else given
    if not isinstance(size, int) or size < 1:
        raise CourseError(f"image_size must be a whole number of pixels along a side, such as 96, not {size!r}.")
    return size


def stored(model: nn.Module, key: str) -> Any:
    """What the model's metadata say, from the text that a weights file can hold."""
    try:
        return json.loads(getattr(model, "metadata", {})[key])
    except (KeyError, TypeError, ValueError) as error:
        raise CourseError(
            f"The model doesn't say on which {key} it was trained. Weights from emcad_lib.train do; else "
            f"give {key}=..., or store it with save_weights(model, path, {key}=...)."
        ) from error
