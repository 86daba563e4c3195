"""How much memory does training take? python benchmarks/activation_memory.py [--record]

For each encoder, size of slice and batch: what a forward pass keeps for the backward pass (measured, see
emcad_lib/train/memory.py), what the loss takes for a moment, what weights, gradients and AdamW's moments take, and for
a card of 16 GB such as a T4 and a laptop's of 6 GB, how many slices fit at once and into how many passes an update must
be divided. Of each card 2 GB stay free: for CUDA itself, the scratch memory of convolutions and gaps between blocks.
Measured without a GPU, so with mixed precision it's an estimate. GB are 1e9 bytes. Takes about a minute and 3 GB of
memory. Prints the table; with --record it's written to figures/recorded/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from emcad_lib.files import replacing
from emcad_lib.model.pvt_emcad import create_model
from emcad_lib.train.memory import accumulate_for, footprint, largest_batch

TABLE = Path(__file__).parents[1] / "figures" / "recorded" / "activation_memory.csv"
ENCODERS = ("pvt_v2_b0", "pvt_v2_b2")
IMAGE_SIZES = (96, 128, 224, 352)  # 352 is the published network's largest
BATCH_SIZES = (1, 6, 16, 25)
CARDS = {"16gb": 16e9, "6gb": 6e9}  # bytes
RESERVE = 2e9


def table(encoders: Iterable[str] = ENCODERS, image_sizes: Iterable[int] = IMAGE_SIZES) -> pd.DataFrame:
    """A row for each encoder, size of slice, precision and batch."""
    rows = []
    sizes = list(image_sizes)
    for encoder in encoders:
        model = create_model(encoder)
        for image_size in sizes:
            for mixed_precision in (False, True):
                needs = footprint(model, image_size, mixed_precision)
                rows += [
                    {
                        "encoder": encoder,
                        "image_size": image_size,
                        "batch_size": batch_size,
                        "mixed_precision": mixed_precision,
                        "activation_gb": needs.activations(batch_size) / 1e9,
                        "moment_gb": batch_size * needs.for_a_moment / 1e9,
                        "constant_gb": needs.constant / 1e9,
                        "total_gb": needs.total(batch_size) / 1e9,
                        **{f"largest_on_{name}": largest_batch(needs, card - RESERVE) for name, card in CARDS.items()},
                        **{
                            f"accumulate_on_{name}": accumulate_for(batch_size, needs, card - RESERVE)
                            for name, card in CARDS.items()
                        },
                    }
                    for batch_size in BATCH_SIZES
                ]
    return pd.DataFrame(rows).round(4)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Measure the memory that training takes.")
    parser.add_argument("--record", action="store_true", help="write the table to figures/recorded/")
    arguments = parser.parse_args(argv)
    found = table()
    print(found.round(2).to_string(index=False))
    if arguments.record:
        with replacing(TABLE) as beside:
            found.to_csv(beside, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
