"""What the pages say in words of what the code decides, of what was recorded, and of the outputs that they store.

Numbers in digits are computed again (test_facts.py). Here stand those in words, and comparisons: "twice", "a third",
"the lowest of all". Each claim names the page, what it says, and a computation that it's so. What a new recording or a
new execution has made untrue must be said otherwise. Of the solutions see test_solutions.py, and of the recorded
studies of 09 to 13 the tests of their benchmarks, too.
"""

from __future__ import annotations

import math
import re
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import NormalDist

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from emcad_lib import create_model, load_weights
from emcad_lib.data.augment import STANDARD
from emcad_lib.data.prepare import STEP
from emcad_lib.data.split import split_patients
from emcad_lib.evaluate.refine import REFINED
from emcad_lib.model.blocks import EUCB, SAB
from emcad_lib.profiles import PROFILES
from emcad_lib.train.study import recorded_runs

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "figures" / "recorded"
HELPERS = runpy.run_path(str(Path(__file__).with_name("facts.py")))
FACTS, STUDY, count = HELPERS["FACTS"], HELPERS["study"], HELPERS["count"]
PAGES = {path.name[:2]: path for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
PAGES |= {"README": ROOT / "README.md", "TEACHING": ROOT / "TEACHING.md", "card": ROOT / "emcad_lib/weights/README.md"}

CLAIMS: list[tuple[str, tuple[str, ...], Callable[[], object]]] = []


def says(page: str, *phrases: str) -> Callable:
    """The page says each of the phrases, and the function computes that it's so."""

    def keep(function: Callable[[], object]) -> Callable[[], object]:
        CLAIMS.append((page, phrases, function))
        return function

    return keep


@cache
def cells(page: str) -> list[nbformat.NotebookNode]:
    return nbformat.read(PAGES[page], as_version=4).cells


@cache
def prose(page: str) -> str:
    """The text of a page, without marks."""
    if PAGES[page].suffix == ".md":
        text = PAGES[page].read_text(encoding="utf-8")
    else:
        text = "\n".join(cell.source for cell in cells(page) if cell.cell_type == "markdown")
    return re.sub(r"\s+", " ", re.sub(r"<!--.*?-->", "", text))


def stored(page: str, start: str) -> list[list[float]]:
    """The numbers in the stored output that begins with ``start``, line by line."""
    (text,) = (
        output.text
        for cell in cells(page)
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.text.lstrip().startswith(start)
    )
    return [[float(number) for number in re.findall(r"-?\d+\.?\d*", line)] for line in text.splitlines()]


def drawn(figure: str) -> pd.DataFrame:
    """The numbers behind a figure as it is committed, by their first column."""
    table = pd.read_csv(ROOT / "figures" / "data" / f"{figure}.csv")
    return table.set_index(table.columns[0])


def recorded(table: str) -> pd.DataFrame:
    return pd.read_csv(RECORDED / f"{table}.csv")


def part_of_quick(split: str) -> int:
    return HELPERS["part"](split, PROFILES["quick"].patients)


# ---- 00 to 02, README ------------------------------------------------------------------------------------------------


@says("00", "the fourteen notebooks")
@says("README", "fourteen Jupyter notebooks")
def _():
    return len(list((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))) == 14


@says("00", "a GPU is the difference between days and months")
def _():
    paper, sizing = PROFILES["paper"], recorded("sizing").set_index("data").loc["BraTS 2020"]
    epochs = paper.epochs * len(paper.batch_sizes) * len(paper.seeds)
    return 1 < epochs * sizing["epoch_hours_t4"] / 24 < 7 and 40 < epochs * sizing["epoch_hours_here"] / 24 < 120


@says("00", "some minutes the first time, when the patients are prepared")
def _():
    return recorded("sizing").set_index("data").loc["BraTS 2020", "preprocess_hours"] < 1 / 6


@says("README", "One patient takes about ten seconds on two processor cores")
def _():
    return 7 < recorded("segment_speed").set_index("command").loc["default", "seconds"] < 13


@says("README", "three other phantoms")
@says("09", "All of this is measured on the same three phantom patients")
@says("10", "All is measured on the same three patients")
def _():
    return part_of_quick("val") == 3


@says("01", "FLAIR lights up for every part", "T1 stays nearest to 0")
def _():
    table = drawn("01-brightness-of-parts")
    return table["flair"].min() > 1 and table.abs().max().idxmin() == "t1"


@says("01", "Eleven of 40 measured quantities are shown")
def _():
    return len(drawn("01-lifelike")) == 11 and FACTS["measured_quantities"]() == 40


@says("02", "one or two voxels in a hundred would be taken for air")
def _():
    return 0.01 < STEP * NormalDist().pdf(0) < 0.025  # of a bell curve; a brain is a little more peaked


@says("02", "One way of splitting calls it excellent")
def _():
    dice = drawn("02-leak")["dice"]
    return dice["split by slice"] > 0.85 and dice["split by patient"] < 0.5


@says("02", "Neighbours are nearly copies")
def _():
    return drawn("02-neighbours-are-alike")["same_head"].iloc[0] > 0.95


@says("02", "never more than three, however many patients there are")
def _():
    moved = []
    for people in range(3, 60):
        names = [f"P{i}" for i in range(people)]
        before = split_patients(names)
        after = [split_patients([*names, newcomer]) for newcomer in ("A", "B", "C", "D")]
        moved += [sum(before[name] != split[name] for name in names) for split in after]
    return max(moved) == 3


@says("02", "Seven functions, each against one bad habit", "`augment` applies all seven in turn")
def _():
    return len(STANDARD) == 7 and [name for name in STANDARD if f"| `{name}` |" not in prose("02")] == []


# ---- 03 to 07 --------------------------------------------------------------------------------------------------------


@says("03", "More peaked, at all three stages", "and the rim has less")
def _():
    table = drawn("03-trained-fields")
    random, trained = table.loc["random weights"], table.drop("random weights")
    return (
        len(trained) == 3
        and (trained["the middle"] > random["the middle"]).all()
        and (trained["the 16 at the rim"] < random["the 16 at the rim"]).all()
    )


@says("03", "Wider, this time")
def _():
    return FACTS["pixel_half_trained"]() > 1.5 * FACTS["pixel_half_random"]()


@says("03", "they do most of the work in the decoder")
def _():
    return FACTS["mscb_multiply_adds_b0"]() > 0.6e9 * FACTS["decoder_multiply_adds_b0"]()


@says("04", "even four kernels would be less than a thousandth of the decoder's weights")
def _():
    return 4 * count(SAB()) < FACTS["decoder_parameters_b0"]() / 1000


@says("04", "sixteen numbers must say what kind of slice this is")
def _():
    return FACTS["channels_4"]() / FACTS["cab_reduction"]() == 16


@says("04", "In FLAIR the maximum", "In T2 it gives a hint. In T1ce neither does", "The averages lie near zero on both")
def _():
    flair, t1ce, t2 = (row[-4:] for row in stored("04", "average, least tumour")[1:])
    rises = [row[3] - row[1] for row in (flair, t2, t1ce)]
    calm = max(abs(average) for row in (flair, t1ce, t2) for average in (row[0], row[2]))
    return rises[0] > 2 > rises[1] > 0.5 > abs(rises[2]) and calm < 0.2


@says("04", "at stage 4 the most closed quarter of the channels", "tells it as well")
def _():
    return FACTS["cab_closed_tells_4"]() >= FACTS["cab_open_tells_4"]()


@says("04", "CAB opens most channels wide, nearly the same ones on both slices, and SAB closes hardly a place")
def _():
    knobs, slices, places = drawn("04-channel-knobs"), drawn("04-two-slices"), drawn("04-where-sab-looks")
    most = (knobs["open beyond half"] > 0.75 * knobs["channels"]).all()
    nearly = (slices["change from slice to slice"] < 0.15 * slices["spread over the channels"]).all()
    return most and nearly and places["lowest"].min() > 0.5 and places["lowest"].idxmin() == "stage 4"


@says("05", "For the slice stored here both shares are the same")
def _():
    ((places, change),) = stored("05", "The tumour's border")
    return abs(places - change) <= 2


@says("05", "a few thousand weights", "more because over half of these are on the finest grid")
def _():
    finest = 18.5 * FACTS["channels_1"]() * FACTS["side_1"]() ** 2
    return 3000 < FACTS["lgag_parameters_b0"]() < 9000 and finest > HELPERS["lgag_multiply_adds"]() / 2


@says(
    "05", "At all three stages even the full *1x1* convolution costs more", "more than half of what the whole decoder"
)
def _():
    widths = [FACTS[f"channels_{stage}"]() for stage in (1, 2, 3)]
    return all(width**2 / 2 > 9 * width for width in widths) and (
        FACTS["lgag_all_full_3x3"]() > FACTS["decoder_parameters_b0"]() / 2
    )


@says("05", "Sixteen opinions at each place")
def _():
    return FACTS["channels_1"]() / 2 == 16


@says("05", "look how much higher it ends: several times, on the patients stored here")
def _():
    begin, end = drawn("05-toy-losses").iloc[0], drawn("05-toy-losses").iloc[-1]
    return end["not told"] > 3 * end["told by g"] and end["not told"] < begin["not told"] / 2


@says("05", "For the patient stored here all three do, and the gate of stage 1, on the finest grid, tells most")
def _():
    rows = {int(row[0]): row[1:] for row in stored("05", "stage  tumour")[1:]}
    gaps = {stage: tumour - brain for stage, (tumour, brain, _) in rows.items()}
    return all(max(row) == row[0] for row in rows.values()) and max(gaps, key=gaps.get) == 1


@says("06", "The trained kernels' medians are nearer to that than to 1")
def _():
    line = torch.tensor([0.25, 0.5, 0.25])
    bilinear, chance = torch.outer(line, line).flatten()[None], FACTS["cosine_of_random_kernels"]()
    blocks = [block for block in load_weights().decoder.modules() if isinstance(block, EUCB)]
    kernels = [block.depthwise[0].weight.detach().flatten(1) for block in blocks]
    medians = [float(torch.cosine_similarity(kernel, bilinear).abs().median()) for kernel in kernels]
    return len(medians) == 3 and all(chance < median < (1 + chance) / 2 for median in medians)


@says("06", "For all but the transposed convolution. Nearest neighbour is exact")
def _():
    rows = stored("06", "nearest                grid strength")
    nearest, bilinear, stamps, eucb = (row[-1] for row in rows)
    return nearest == 0 and max(bilinear, eucb) < stamps / 5


@says("06", "A tenth of a percent", "nearly half of a coarse pixel")
def _():
    share = FACTS["head_parameters_b0"]() / FACTS["decoder_parameters_b0"]()
    return 0.0005 < share < 0.0015 and 0.45 < FACTS["align_corners_slide"]() / FACTS["stride_4"]() < 0.5


@says("06", "For the patient stored here p1, and each head beats the coarser one below it")
def _():
    scores = [row[-1] for row in stored("06", "p4: Dice")]
    return len(scores) == 4 and scores == sorted(scores)


@says("07", "more than half of the decoder: the weights", "`mscam1` has few weights, and keeps the most")
def _():
    parts = drawn("07-three-costs")
    return (
        parts["parameters"].max() == parts.loc["decoder.mscam4", "parameters"] > FACTS["decoder_parameters_b0"]() / 2
        and parts["kept MB"].idxmax() == "decoder.mscam1"
    )


@says("07", "the two nearly cancel")
def _():
    work = drawn("07-three-costs").query("block == 'MSCAM'")["multiply-adds"]
    return len(work) == 4 and work.max() < 2 * work.min()


@says("07", "keeps some two dozen times what it hands on")
def _():
    return 22 < FACTS["mscam1_kept_times"]() < 26


@says("07", "ResNet-18's decoder is smaller than B2's by a tenth", "grows from half a million to almost two")
def _():
    b0, b2 = FACTS["decoder_parameters_b0"](), FACTS["decoder_parameters_b2"]()
    return 0.08 < 1 - count(create_model("resnet18").decoder) / b2 < 0.12 and 0.5e6 < b0 < 0.55e6 and 1.8e6 < b2 < 2e6


@says("07", "the encoder dominates both size and work")
def _():
    table = drawn("07-encoders").loc[["pvt_v2_b0", "pvt_v2_b2"]]
    return (table["encoder M"] > 3 * table["decoder M"]).all() and (table["encoder G"] > 3 * table["decoder G"]).all()


@says(
    "07",
    "three marks of one row lie about as far apart as the means of all rows",
    "the network without gates scores higher with each of the three seeds",
    "and not with every seed",
    "chance moves the score as much as any of them does",
    "picked the best",
)
def _():
    table = recorded("block_ablation").pivot(index="seed", columns=["encoder", "variant"], values="dice")
    small, large = table["pvt_v2_b0"], table["pvt_v2_b2", "complete"]
    means, complete = small.mean(), small["complete"]
    spread = np.ptp(complete) / np.ptp(means)
    larger = large > complete
    return (
        0.8 < spread < 1.25
        and (means.idxmin(), means.idxmax(), len(means)) == ("concatenation", "no-lgag", 6)
        and (small["no-lgag"] > complete).all()
        and large.mean() > complete.mean()
        and larger.any()
        and not larger.all()
    )


@says("07", "There each step helps, MSCAM more than LGAG, and both together more than either")
def _():
    eucb, lgag, mscam, both = (HELPERS["from_the_literature"](f"paper_ablation_dice_{step}")
                               for step in ("eucb", "lgag", "mscam", "all"))  # fmt: skip
    return eucb < lgag < mscam < both


# ---- 08 to 12 --------------------------------------------------------------------------------------------------------


@says("08", "they are a third of what 6 slices need", "For B0 they are a small part", "Sixteen bits save about a third")
def _():
    table = recorded("activation_memory").query("image_size == 224 and batch_size >= 6")
    table = table.set_index(["encoder", "batch_size", "mixed_precision"])
    held = table["constant_gb"] / table["total_gb"]
    saved = 1 - table["total_gb"].xs(True, level=2) / table["total_gb"].xs(False, level=2)
    third, small = held["pvt_v2_b2", 6, True], held["pvt_v2_b0", 6, False]
    return third == pytest.approx(1 / 3, abs=0.02) and small < 0.15 and saved.between(0.25, 0.4).all()


@says("08", "over fifteen mixtures of four maps", "fifteen terms")
@says("10", "the training loss is a sum of fifteen terms")
def _():
    return FACTS["mutation_subsets"]() == 15


@says("09", "changed four times as often", "It has made a quarter of the updates", "has seen four times as many slices")
def _():
    more = STUDY("updates", size=6) / STUDY("updates", size=25)
    seen = STUDY("samples", "updates", size=25) / STUDY("samples", "updates", size=6)
    return 3.7 < more < 4.3 and 3.7 < seen < 4.3


@says("09", "the noise should fall by about half", "three and a half times as wide")
def _():
    return math.sqrt(6 / 25) == pytest.approx(0.5, abs=0.02) and PROFILES["paper"].image_size / 64 == 3.5


@says("09", "The band of batch size 6 is the widest, and one of its seeds shoots far up before it comes down")
def _():
    runs = recorded_runs(recorded("batch_sizes"))
    widths = {
        size: {what: np.ptp([run[what] for run in of_size], axis=0).max() for what in ("val_loss", "dice_patient")}
        for size, of_size in runs.items()
    }
    rises = [run["val_loss"].max() - run["val_loss"].iloc[0] for run in runs[6]]
    widest = all(max(widths, key=lambda size, what=what: widths[size][what]) == 6 for what in widths[6])
    return widest and sum(rise > 0.3 for rise in rises) == 1


@says("09", "on average its three ended with the lowest loss of all", "each seed comes down calmly, and not as far")
def _():
    table = recorded("batch_sizes")
    ends = {(rate, size): np.mean([run["val_loss"].iloc[-1] for run in runs])
            for rate in ("fixed", "scaled") for size, runs in recorded_runs(table, rate=rate).items()}  # fmt: skip
    return min(ends, key=ends.get) == ("fixed", 6)


@says("09", "In parts they move five times as often")
def _():
    return recorded("batch_sizes")["accumulate"].max() == 5


@says("09", "The paper profile takes three seeds, the others one")
def _():
    return {name: len(profile.seeds) for name, profile in PROFILES.items()} == {"ci": 1, "quick": 1, "paper": 3}


@says("10", "the score of one and the same run may double")
def _():
    return max(STUDY("best_patient", size=size) / STUDY("best_slice_empty0", size=size) for size in (6, 16, 25)) > 2


@says("11", "On the recorded patients the lowest is less than half of the highest")
def _():
    scores = recorded("four_scores_real_patients")["score"]
    return scores.min() < scores.max() / 2


@says("11", "it marks something in a quarter of the slices without tumour")
def _():
    empty = 1 - FACTS["recorded_share"]()
    alarms = 1 - (FACTS["recorded_slice_empty1"]() - FACTS["recorded_slice_empty0"]()) / empty
    return alarms == pytest.approx(0.25, abs=0.02)


@says("11", "with a tenth of the learning rate")
def _():
    return FACTS["paper_rate"]() == pytest.approx(FACTS["rate_middle"]() / 10)


@says("11", "the luckiest of nine tries")
def _():
    return len(drawn("11-threshold")) == 9


@says(
    "12",
    "three kinds of patients. In six,",
    "a sensitivity of about 90 % or more, and a precision a little lower",
    "In three, a third to a half is missed, though what is found is mostly right",
    "in the smallest one, most of what it marks is healthy",
)
@says(
    "card",
    "the lowest score is that of the smallest tumour, where most of what it marks is healthy",
    "of three others it misses a third to a half",
)
def _():
    table = recorded("reference_weights_real_patients").sort_values("dice")
    worst, shy, good = table.iloc[0], table.iloc[1:4], table.iloc[4:]
    return (
        worst["true_cm3"] == table["true_cm3"].min()
        and worst["precision"] < 0.5
        and (1 - shy["sensitivity"]).between(0.32, 0.53).all()
        and shy["precision"].min() > 0.8
        and len(good) == 6
        and good["sensitivity"].min() > 0.87
        and (good["sensitivity"] - good["precision"]).between(0, 0.12).all()
    )


@says("12", "every third slice is enough", "mixed half and half", "smaller than a tenth of the largest", "Four steps")
def _():
    return REFINED == {"every": 3, "flip": True, "adapt": 0.5, "crumbs": 0.1}


@says("12", "With the network that ships, the mean of the ten stayed where it is", "at another threshold for each")
def _():
    means = recorded("trainings_real_patients").set_index(["training", "threshold"])["mean"].unstack("training")
    best = means[["first", "second"]].idxmax()
    return means["third"][0.4] == pytest.approx(means["third"][0.5], abs=0.001) and best.nunique() == 2


@says("12", "The last line has the ten real ones", "no follow-up could rest on it")
def _():
    real = recorded("reference_weights_real_patients")
    spread = 1.96 * (real["found_cm3"] - real["true_cm3"]).std()
    return 2**0.5 * spread / real["true_cm3"].mean() > 0.6  # two fifths are asked


@says("12", "the one for three regions does better in six of the ten. Two patients decide it")
def _():
    whole = recorded("reference_weights_real_patients").set_index("patient")["dice"]
    three = recorded("regions_real_patients").query("region == 'whole'").set_index("patient")["dice"]
    lead = (whole - three).sort_values()
    return (lead < 0).sum() == 6 and lead.mean() > 0 > lead.iloc[:-2].mean()


@says("12", "that would happen in one case of eight", "of seven rows that only chance moves, about one would be")
def _():
    rows = recorded("phantom_ablation")["left_out"].nunique()  # with the complete one
    return rows == 8 and (rows - 1) * 0.5**3 == pytest.approx(1, abs=0.2)


@says("12", "Even the blue marks, which are counted alike, belong to four groups of patients")
def _():
    table = recorded("reference_results")
    blue = table[table["counted"].str.startswith("per patient") & ~table["scored_on"].str.contains("phantom")]
    return blue["scored_on"].nunique() == 4


# ---- The model card, the teaching guide ------------------------------------------------------------------------------


@says("card", "validation phantoms (the fifth)", "It's the *last* epoch")
def _():
    epochs = [int(load_weights(of).metadata["epoch"]) for of in ("whole", "regions")]
    return epochs == [5, FACTS["reference_epochs"]()]


@says("card", "two patients, of whom it misses most of the tumour, decide the mean")
def _():
    one = recorded("reference_weights_real_patients").set_index("patient")["dice"]
    other = recorded("regions_real_patients").query("region == 'whole'").set_index("patient")
    behind = (one - other["dice"]).sort_values()
    return (other.loc[behind.index[-2:], "sensitivity"] < 0.5).all() and behind.iloc[-3] < 0.1 < behind.iloc[-2]


@says("TEACHING", "three or four in each notebook")
def _():
    notebooks = [page for page in PAGES if page.isdigit()]
    texts = ["\n".join(cell.source for cell in cells(page) if cell.cell_type == "markdown") for page in notebooks]
    exercises = [text.partition("## Exercises")[2] for text in texts]
    return {len(re.findall(r"^### \d", text, flags=re.M)) for text in exercises} == {3, 4}


@pytest.mark.parametrize(
    ("where", "phrases", "so"),
    CLAIMS,
    ids=[f"{where}-{' '.join(phrases[0].split()[:8])}" for where, phrases, _ in CLAIMS],
)
def test_what_a_page_says_in_words_is_so(where, phrases, so):
    assert [phrase for phrase in phrases if phrase not in prose(where)] == []
    assert so()
