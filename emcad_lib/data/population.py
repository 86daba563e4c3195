"""How alike are phantoms and patients? The same quantities measured on both.

``population.csv`` holds percentiles of these quantities over 58 real BraTS patients: numbers only, no voxel of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from emcad_lib.data.tumour import ENHANCING, NECROSIS, OEDEMA

POPULATION = Path(__file__).with_name("population.csv")
PERCENTILES = (10, 25, 50, 75, 90)


def measure(images: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """The quantities of one patient.

    Args:
        images: modality -> array (I, J, K) of 1 mm voxels, 0 outside the brain.
        labels: (I, J, K), as in BraTS 2020.

    Returns:
        Volumes of brain and whole tumour (wt) in cm3; core, enhancing (et) and necrotic (ncr) share of the whole
        tumour; share of the brain's slices with tumour; brain slices (bs); components of over 500 voxels (comp). Per
        modality, in standard deviations of the brain: the median in oedema (ed), ncr and et, percentiles 1, 50 and 99
        of healthy tissue; and the correlation of healthy neighbours along the first (ac0) and third (ac2) axis. NaN
        where a part is missing.
    """
    brain = np.any([image != 0 for image in images.values()], axis=0)  # one image alone may not cover all of it
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    labels, images = labels[box], {modality: image[box] for modality, image in images.items()}
    whole = labels > 0
    volume = max(int(whole.sum()), 1)
    brain = brain[box]
    slices = brain.any((0, 1))
    sizes = np.bincount(ndimage.label(whole)[0].ravel())[1:]
    found = {
        "brain": brain.sum() / 1000,
        "wt": whole.sum() / 1000,
        "core": ((labels == NECROSIS) | (labels == ENHANCING)).sum() / volume,
        "et": (labels == ENHANCING).sum() / volume,
        "ncr": (labels == NECROSIS).sum() / volume,
        "share": (whole.any((0, 1)) & slices).sum() / max(slices.sum(), 1),
        "bs": slices.sum(),
        "comp": (sizes > 500).sum(),
    }
    for modality, image in images.items():
        inside = image != 0
        values = image[inside].astype(np.float32)
        z = (image.astype(np.float32) - values.mean()) / values.std()
        for part, label in (("ed", OEDEMA), ("ncr", NECROSIS), ("et", ENHANCING)):
            voxels = z[(labels == label) & inside]
            found[f"{modality}_{part}"] = np.median(voxels) if len(voxels) else np.nan
        healthy = inside & ~whole
        for percent, value in zip((1, 50, 99), np.percentile(z[healthy], (1, 50, 99)), strict=True):
            found[f"{modality}_p{percent}"] = value
        for axis in (0, 2):
            here = [slice(None)] * 3
            there = [slice(None)] * 3
            here[axis], there[axis] = slice(None, -1), slice(1, None)
            both = healthy[tuple(here)] & healthy[tuple(there)]
            pair = np.corrcoef(z[tuple(here)][both], z[tuple(there)][both])
            found[f"{modality}_ac{axis}"] = pair[0, 1]
    return {name: float(value) for name, value in found.items()}


def percentiles(patients: Iterable[Mapping[str, float]]) -> pd.DataFrame:
    """A table like ``population.csv`` of measured patients: a row per quantity, the columns p10, p25, p50, p75, p90."""
    table = pd.DataFrame(list(patients)).quantile([percent / 100 for percent in PERCENTILES]).T
    table.columns = pd.Index([f"p{percent}" for percent in PERCENTILES])
    return table.rename_axis("quantity")


def side_by_side(phantoms: pd.DataFrame, population: pd.DataFrame) -> pd.DataFrame:
    """Phantom and real percentiles in one table, with two verdicts for each quantity.

    "median fits": the phantoms' median lies between the real 25th and 75th percentile. "spread": the phantoms'
    p90 - p10 divided by the real one; between a half and two it counts as alike.
    """
    table = pd.DataFrame({f"phantom {name}": phantoms[name] for name in ("p10", "p50", "p90")})
    for name in ("p10", "p25", "p50", "p75", "p90"):
        table[f"real {name}"] = population[name]
    table["median fits"] = table["phantom p50"].between(population["p25"], population["p75"])
    table["spread"] = (phantoms["p90"] - phantoms["p10"]) / (population["p90"] - population["p10"])
    return table
