"""How the learning rate goes from the first update of a run to the last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from emcad_lib.train.config import TrainConfig

PLATEAU_FACTOR = 0.3  # of the rate is left, each time
PLATEAU_PATIENCE = 0.05  # share of a run's epochs that may go by without a lower loss: 10 of 200, none of 8


def learning_rate_at(config: TrainConfig, update: int, updates: int, val_losses: Sequence[float] = ()) -> float:
    """The learning rate of one update (counted from 0) of a run of ``updates``.

    "constant" as in the published training. "cosine" rises in a line over the first updates, while the network is
    still random and steps in a wrong direction do most harm, and then falls along half a cosine to 0, so that the last
    steps are small and settle. It depends on the number of epochs: a run that is resumed with more of them goes on
    at the learning rate that the longer run would have here. "plateau" knows no end: it takes a smaller rate when the
    validation loss has stopped falling.

    Args:
        config: the settings.
        update: which one.
        updates: of the whole run.
        val_losses: of the epochs that are done, which "plateau" goes by.
    """
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "plateau":
        return _on_plateau(config.learning_rate, val_losses, int(PLATEAU_PATIENCE * config.epochs))
    warm_up = math.ceil(config.warm_up * updates)
    if update < warm_up:
        return config.learning_rate * (update + 1) / warm_up
    done = (update - warm_up) / (updates - warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def _on_plateau(rate: float, val_losses: Sequence[float], patience: int) -> float:
    """PyTorch's own schedule, told of all losses so far. So a run that is resumed needs no more than its history."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    schedule = ReduceLROnPlateau(optimizer, factor=PLATEAU_FACTOR, patience=patience)
    for loss in val_losses:
        schedule.step(loss)
    return float(optimizer.param_groups[0]["lr"])
