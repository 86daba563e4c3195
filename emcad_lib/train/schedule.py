"""How the learning rate goes from the first update of a run to the last."""

from __future__ import annotations

import math

from emcad_lib.train.config import TrainConfig

WARM_UP = 0.05  # share of a run's updates over which the cosine schedule rises to its full learning rate


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
