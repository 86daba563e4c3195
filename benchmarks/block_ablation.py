"""What is each block of EMCAD good for? python benchmarks/block_ablation.py [--seeds 0 1 2] [--record]

Trains the network complete and, for each block, without it (``emcad_lib/model/ablate.py``), all on the same phantom
patients with the same updates and settings, and scores each on phantom patients that none has seen: whole-tumour Dice
per patient, axial slices, nothing averaged. Another seed starts from other weights and draws the slices in another
order. A training that is done is kept in --work, so that an interrupted run goes on where it stopped. With --record
the table is written to figures/recorded/; rows that are there already, with the same settings, stay and are not
measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from emcad_lib.data.phantom import PHANTOM_VERSION
from emcad_lib.data.slices import Cache, SliceDataset
from emcad_lib.evaluate.metrics import dice
from emcad_lib.files import CourseError, read_json, replacing, write_json
from emcad_lib.model.ablate import COMPLETE, VARIANTS
from emcad_lib.model.weights import load_weights
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train

sys.path.insert(0, str(Path(__file__).parent))
from phantom_ablation import COMPLETE as NOTHING
from phantom_ablation import PATIENTS, phantom_cache
from real_patients import RECORDED

TABLE = RECORDED / "block_ablation.csv"
SETTINGS = {"image_size": 96, "batch_size": 16, "epochs": 2, "slices_per_epoch": 4000, "validate_patients": 2}
MADE = {
    "phantom_version": PHANTOM_VERSION,
    "patients": PATIENTS,
    "slices": SETTINGS["epochs"] * SETTINGS["slices_per_epoch"],
}
# What is compared: the variants with the small encoder, and the complete network with the large one.
NETWORKS = [*((variant, "pvt_v2_b0") for variant in VARIANTS), (COMPLETE, "pvt_v2_b2")]
UNSEEN = ("val", "test")  # nothing is chosen on the validation patients here: the last epoch counts


def unseen_dice(weights: Path, cache: Cache) -> float:
    """Mean Dice over the patients that no weight was trained on."""
    model = load_weights(weights)
    scores = []
    for split in UNSEEN:
        for patient in cache.names(split):
            slices = SliceDataset(cache, split, SETTINGS["image_size"], patients=[patient])
            x, y = slices.__getitems__(list(range(len(slices))))  # (S, 3, N, N), (S, 1, N, N)
            with torch.inference_mode():
                found = torch.cat([model(part)[-1] > 0 for part in x.split(32)])
            scores.append(dice(found.numpy(), (y > 0.5).numpy()))
    return float(np.mean(scores))


def measure(variant: str, encoder: str, seed: int, work: Path) -> dict[str, Any]:
    """A row of the table: the Dice after one training, and how large the decoder is."""
    name = f"{variant}-{encoder}-version{PHANTOM_VERSION}-seed{seed}"
    result = work / "block_results" / f"{name}.json"
    made_with = {**SETTINGS, "patients": PATIENTS, "phantom_version": PHANTOM_VERSION}
    if result.exists() and (before := read_json(result))["made_with"] == made_with:
        return before["row"]
    cache = phantom_cache(NOTHING, work)
    config = TrainConfig(
        cache, work / "runs", name, encoder=encoder, variant=variant, seed=seed, resume=True, **SETTINGS
    )
    train(config)
    weights = config.folder / "last.safetensors"
    row = {
        **MADE,
        "variant": variant,
        "encoder": encoder,
        "seed": seed,
        "decoder_parameters": sum(weight.numel() for weight in load_weights(weights).decoder.parameters()),
        "dice": round(unseen_dice(weights, Cache(cache)), 4),
    }
    write_json(result, {"row": row, "made_with": made_with})
    return row


def recorded_rows() -> list[dict[str, Any]]:
    """Rows of the recorded table that were made with today's settings."""
    if not TABLE.is_file():
        return []
    table = pd.read_csv(TABLE)
    same = (table[list(MADE)] == pd.Series(MADE)).all(axis=1)
    return table[same].to_dict("records")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Train without one block of EMCAD at a time.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training each (default: 0 1 2)")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"), help="folder for what is made on the way")
    parser.add_argument("--record", action="store_true", help="write the table to figures/recorded/")
    arguments = parser.parse_args(argv)
    rows = recorded_rows()
    known = {(row["variant"], row["encoder"], row["seed"]) for row in rows}
    try:
        for variant, encoder in NETWORKS:
            for seed in arguments.seeds:
                if (variant, encoder, seed) not in known:
                    rows.append(measure(variant, encoder, seed, arguments.work))
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    table = pd.DataFrame(rows)
    print(table.pivot(index=["variant", "encoder"], columns="seed", values="dice").round(3).to_string())
    if arguments.record:
        with replacing(TABLE) as beside:
            table.to_csv(beside, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
