"""The numbers of the paper whose experiment the course follows, in one place.

Uzor et al. 2025 (arXiv 2509.05431) trained PVT-EMCAD on slices of BraTS 2020 with batches of 6, 16 and 25. Their
numbers stand beside ours as what they are: another data set, another training, and another Dice.
"""

from __future__ import annotations

import pandas as pd

SOURCE = "Uzor et al. 2025, arXiv 2509.05431"

# What the paper says of each run; None where it gives no number.
PAPER = (
    {"run": "first model", "batch_size": None, "best_dice": 0.31, "mean_dice": 0.285, "mean_dice_spread": 0.015},
    {"run": "batch size 16", "batch_size": 16, "best_dice": None, "mean_dice": None, "mean_dice_spread": None},
    {"run": "batch size 25", "batch_size": 25, "best_dice": 0.365, "mean_dice": None, "mean_dice_spread": None},
)

# Its words on loss and speed.
REMARKS = {
    "first model": "moderate scores, stable, no overfitting",
    "batch size 16": "a good compromise: better Dice, high stability, medium speed of convergence",
    "batch size 25": "best Dice, fastest convergence, most stable loss, in spite of a shorter training",
}


def published_results() -> pd.DataFrame:
    """The paper's results, a row per run: best and mean Dice (NaN where it gives none), and what it says in words."""
    table = pd.DataFrame(PAPER).astype({"batch_size": "Int64"})
    return table.assign(remark=table["run"].map(REMARKS), source=SOURCE)
