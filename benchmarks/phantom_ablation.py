"""What is each ingredient of the phantom good for? python benchmarks/phantom_ablation.py DIR [--seeds 0 1] [--record]

Trains one small network on complete phantoms and one for each ingredient left out (``emcad_lib/data/leave_out.py``),
all with the same patients, updates and settings, and scores each on the real patients of DIR: whole-tumour Dice per
patient, axial slices, nothing averaged. Another seed starts from other weights and draws the slices in another order.
What is done already is kept in --work, so that an interrupted run goes on where it stopped. With --record the table is
written to figures/recorded/, in place of what was recorded for this version of the phantom. It shows and keeps no
picture of a patient.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from emcad_lib.data.brats import find_patients
from emcad_lib.data.leave_out import INGREDIENTS
from emcad_lib.data.phantom import PHANTOM_VERSION, make_phantoms
from emcad_lib.data.preprocess import preprocess
from emcad_lib.files import CourseError, read_json, replacing, write_json
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train

sys.path.insert(0, str(Path(__file__).parent))
from real_patients import RECORDED, score

COMPLETE = "nothing"
PATIENTS, PATIENTS_SEED = 48, 3
SETTINGS = {"image_size": 96, "batch_size": 16, "epochs": 2, "slices_per_epoch": 4000, "validate_patients": 2}
MADE = {
    "phantom_version": PHANTOM_VERSION,
    "patients": PATIENTS,
    "slices": SETTINGS["epochs"] * SETTINGS["slices_per_epoch"],
}


def real_names(folder: Path) -> list[str]:
    """The real patients that there are to score on."""
    patients, _ = find_patients(folder, need_segmentation=True)
    if not patients:
        raise CourseError(f"{folder}: no patients with a segmentation here.")
    return sorted(patient.name for patient in patients)


def phantom_cache(left_out: str, work: Path) -> Path:
    """The slices of phantoms without the ingredient ``left_out``; made at the first call."""
    patients, cache = work / "patients", work / "caches" / f"{left_out}-version{PHANTOM_VERSION}"
    if not cache.exists():
        shutil.rmtree(patients, ignore_errors=True)
        make_phantoms(patients, PATIENTS, PATIENTS_SEED, leave_out=None if left_out == COMPLETE else left_out)
        preprocess(patients, cache.with_suffix(".part"))
        cache.with_suffix(".part").rename(cache)
        shutil.rmtree(patients)  # 48 patients take 700 MB, their slices a third of it
    return cache


def measure(left_out: str, seed: int, real: Path, work: Path) -> float:
    """Mean Dice on the patients of ``real`` after a training on phantoms without the ingredient ``left_out``."""
    result = work / "results" / f"{left_out}-{seed}.json"
    made_with = {**SETTINGS, "patients": PATIENTS, "phantom_version": PHANTOM_VERSION, "real": real_names(real)}
    if result.exists() and (before := read_json(result))["made_with"] == made_with:
        return float(before["dice"])
    cache = phantom_cache(left_out, work)
    name = f"{left_out}-version{PHANTOM_VERSION}-seed{seed}"
    train(TrainConfig(cache, work / "runs", name, seed=seed, resume=True, **SETTINGS))
    scores, _ = score(real, work / "runs" / name / "last.safetensors", steps=["axial slices only"])
    mean = float(scores.iloc[:, -1].mean())
    write_json(result, {"dice": mean, "made_with": made_with})
    return mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Train without one ingredient of the phantom at a time.")
    parser.add_argument("folder", type=Path, help="a folder of BraTS patients")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="one training each (default: 0 1)")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"), help="folder for what is made on the way")
    parser.add_argument("--record", action="store_true", help="write the table to figures/recorded/")
    arguments = parser.parse_args(argv)
    try:
        rows = [
            {
                **MADE,
                "left_out": left_out,
                "seed": seed,
                "dice": measure(left_out, seed, arguments.folder, arguments.work),
            }
            for seed in arguments.seeds
            for left_out in (COMPLETE, *INGREDIENTS)
        ]
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    table = pd.DataFrame(rows)
    print(table.pivot(index="left_out", columns="seed", values="dice").round(3).to_string())
    if arguments.record:
        recorded = RECORDED / "phantom_ablation.csv"
        if recorded.is_file():  # trainings on earlier versions of the phantom stay
            earlier = pd.read_csv(recorded)
            table = pd.concat([earlier[earlier["phantom_version"] != PHANTOM_VERSION], table])
        with replacing(recorded) as beside:
            table.to_csv(beside, index=False, float_format="%.3f")
    return 0


if __name__ == "__main__":
    sys.exit(main())
