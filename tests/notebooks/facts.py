"""Every number that the lessons and the README state, computed again.

A number in prose carries a mark: ``506,507<!--fact:decoder_parameters_b0-->``. The name is a key of ``FACTS``, or a sum
of such keys and numbers: ``24<!--fact:px_quick / stride_1-->``.
"""

import inspect
import itertools
import math
import re
import runpy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import timm
import torch
from scipy.optimize import brentq
from scipy.stats import nct, t
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from emcad_lib import create_model, load_weights
from emcad_lib.data.labels import BRATS_2020, BRATS_2023, DECATHLON, REGIONS
from emcad_lib.data.phantom import AFFINE, PHANTOM_VERSION, patient_name
from emcad_lib.data.population import PERCENTILES, POPULATION
from emcad_lib.data.population import __doc__ as ABOUT_POPULATION
from emcad_lib.data.prepare import CLIP, STEP
from emcad_lib.data.slices import CANVAS_MM
from emcad_lib.data.split import split_patients
from emcad_lib.data.tumour import equal_volume_radius
from emcad_lib.files import read_json
from emcad_lib.lesson import RECORDED
from emcad_lib.model.blocks import CAB, EUCB, LGAG, MSCAM, MSCB, MSDC, SAB
from emcad_lib.model.trace import trace
from emcad_lib.model.weights import REFERENCE_WEIGHTS
from emcad_lib.profiles import PROFILES
from emcad_lib.train.published import published_results
from emcad_lib.train.study import LEVEL, describe, recorded_runs

ROOT = Path(__file__).parents[2]
FIGURES = RECORDED.parent / "data"


def default(function: Callable[..., object], parameter: str) -> object:
    """The value that a parameter of the library's has by default."""
    return inspect.signature(function).parameters[parameter].default


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def decoder_multiply_adds(encoder: str) -> float:
    """Multiply-adds of the decoder's convolutions for one slice of 224 px, in units of 10^9."""
    model = create_model(encoder).eval()
    with torch.no_grad():
        features = model.encoder(torch.zeros(1, 3, 224, 224))
        with FlopCounterMode(display=False) as counter:
            model.decoder(features)
    return counter.get_total_flops() / 2e9


def decoder_all_operations(encoder: str) -> float:
    """What the decoder does for one slice of 224 px, in units of 10^9, counted by formula and not by hooks.

    Multiply-adds of convolutions, and one operation for each number that another module touches (BN: two).
    """
    sides = (56, 28, 14, 7)
    widths = create_model(encoder).encoder.feature_info.channels()
    total = decoder_multiply_adds(encoder) * 1e9
    for stage, (width, side) in enumerate(zip(widths, sides, strict=True)):
        places = side * side
        total += 2 * width * places  # two poolings of CAB
        total += places * (2 * (4 * 2 * width + width) + 4 * 2 * width)  # MSCB: five BNs, four activations
        if stage < 3:
            below, half = widths[stage + 1], width // 2
            total += places * (below + 2 * below + below + width)  # EUCB: doubling, BN, ReLU, bias
            total += places * (2 * half + 2 * 2 * half + half + 1 + 2)  # LGAG: biases, BNs and the ReLU
    return total / 1e9


def decoder_with_plain_operations(encoder: str) -> float:
    """The same with each plain ``+`` and ``*`` between modules, one operation for each number that it gives."""
    plain = 0
    widths = create_model(encoder).encoder.feature_info.channels()
    for stage, (width, side) in enumerate(zip(widths, (56, 28, 14, 7), strict=True)):
        # MSCAM: the products with CAB's and SAB's knobs, two sums of three branches twice as wide, the shortcut
        plain += side * side * (2 * width + 2 * 2 * width + width)
        if stage < 3:  # LGAG: the sum of both judges and the product with the opening; then u + LGAG
            plain += side * side * (width // 2 + width + width)
    return decoder_all_operations(encoder) + plain / 1e9


def traced(part: str, column: str) -> float:
    """A number of the tracer's, for B0 on one slice of 224 px. Its own tests hold it against counts by hand."""
    return float(trace(create_model("pvt_v2_b0"), torch.zeros(1, 3, 224, 224)).loc[part, column])


def reference_on_real_patients() -> pd.Series:
    """Dice of the shipped weights on ten real patients, recorded once for each file of weights."""
    return pd.read_csv(RECORDED / "reference_weights_real_patients.csv")["dice"]


def of_training(training: str) -> pd.Series:
    """Mean Dice on ten real patients of one of the trainings that were tried, by threshold."""
    table = pd.read_csv(RECORDED / "trainings_real_patients.csv")
    return table[table["training"] == training].set_index("threshold")["mean"]


def phantoms_and_population() -> pd.DataFrame:
    """The 128 phantoms that the shipped weights were trained on beside 58 real patients, by compare_phantom.py."""
    return pd.read_csv(RECORDED / "phantoms_and_population.csv", index_col="quantity")


def made_with(option: str) -> int:
    """An option of the commands that made the shipped weights, as their model card has it."""
    card = (REFERENCE_WEIGHTS.parent / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"^ {{4}}python .*--{option} (\d+)", card, flags=re.MULTILINE)
    assert match
    return int(match[1])


def part(split: str, patients: int) -> int:
    """How many of so many phantom patients are in a split."""
    return list(split_patients(map(patient_name, range(patients))).values()).count(split)


@cache
def constant(script: str, name: str) -> object:
    """A constant of one of the project's scripts, such as the settings of a recorded run."""
    return runpy.run_path(str(ROOT / script))[name]


def made_by(table: str, column: str) -> pd.Series:
    """A column of a recorded table of trainings, each value once, in the table's order."""
    return pd.Series(pd.read_csv(RECORDED / f"{table}.csv")[column].unique())


def median_of_real_patients(quantity: str) -> float:
    return float(pd.read_csv(POPULATION, index_col="quantity").loc[quantity, "p50"])


def training_slices_of_brats_2020() -> float:
    """Slices with brain in the training part, if each patient has as many as the middle real one, in thousands."""
    share = default(split_patients, "fractions")[0]
    return PROFILES["paper"].patients * share * median_of_real_patients("bs") / 1000


def impossible_regions() -> list[int]:
    """Numbers of three bits that no voxel of any tissue has."""
    return sorted(set(range(2 ** len(REGIONS))) - {int(bits) for bits in BRATS_2020.regions(np.array([0, 1, 2, 4]))})


def batch_sizes() -> tuple[int, ...]:
    """The batch sizes that are compared, the same in each profile."""
    (sizes,) = {profile.batch_sizes for profile in PROFILES.values()}
    return sizes


@cache
def stages(encoder: str) -> list[dict[str, int]]:
    """Channels and stride of the last four stages of an encoder, fine to coarse."""
    info = timm.create_model(encoder, features_only=True, pretrained=False).feature_info
    return [dict(channels=c, stride=r) for c, r in zip(info.channels(), info.reduction(), strict=True)]


def ablation(left_out: str) -> pd.Series:
    """Mean Dice on ten real patients after training on phantoms without an ingredient, by training."""
    table = pd.read_csv(RECORDED / "phantom_ablation.csv")
    return table.loc[table["left_out"] == left_out, "dice"]


def block_ablation(variant: str, encoder: str = "pvt_v2_b0") -> pd.Series:
    """Mean Dice of unseen phantom patients after training one of the variants, by seed."""
    table = pd.read_csv(RECORDED / "block_ablation.csv")
    return table.loc[(table["variant"] == variant) & (table["encoder"] == encoder), "dice"]


def training_step(way: str, column: str) -> float:
    """A measurement of benchmarks/training_step.py, of the way whose name contains ``way``."""
    table = pd.read_csv(RECORDED / "training_step.csv")
    return float(table.loc[table["way"].str.contains(way, regex=False), column].item())


def study(column: str, budget: str = "samples", rate: str = "fixed", size: int = 16, accumulate: int = 1) -> float:
    """What the recorded runs of one way have in a column at their end; the mean of the seeds."""
    runs = recorded_runs(pd.read_csv(RECORDED / "batch_sizes.csv"), budget, rate, accumulate)[size]
    return float(np.mean([describe(run)[column] for run in runs]))


def study_ends(column: str, rate: str = "fixed") -> list[list[float]]:
    """What the recorded runs with equally many slices have in a column at their end: seed by seed, by batch size."""
    runs = recorded_runs(pd.read_csv(RECORDED / "batch_sizes.csv"), rate=rate)
    return [[describe(run)[column] for run in of_size] for of_size in runs.values()]


def study_ranges() -> dict[str, Callable[[], float]]:
    """The lowest and the highest mean of a batch size, by recipe and score."""
    columns = {"patient": "last_patient", "published": "best_slice_published"}
    names = {("paper", "patient"): "paper_patient", ("fixed", "patient"): "patient"}
    names |= {("paper", "published"): "published_paper", ("fixed", "published"): "published_ours"}
    return {
        f"study_{name}_{end}": lambda rate=rate, column=columns[score], pick=pick: pick(
            map(np.mean, study_ends(column, rate))
        )
        for (rate, score), name in names.items()
        for end, pick in (("lowest", min), ("highest", max))
    }


def detectable_difference(groups: list[list[float]], power: float = 0.8, level: float = 0.05) -> float:
    """The difference of two means that a t-test of two such groups would find so often."""
    spread = math.sqrt(np.mean([np.var(group, ddof=1) for group in groups]))
    seeds = len(groups[0])
    freedom, error = 2 * seeds - 2, spread * math.sqrt(2 / seeds)
    limit = t.ppf(1 - level / 2, freedom)
    return error * brentq(lambda shift: nct.sf(limit, freedom, shift) - power, 0, 50)


def study_rate(way: str, size: int) -> float:
    """The learning rate that a batch size had in the recorded study: fixed, scaled or paper."""
    ledgers = read_json(RECORDED / "batch_sizes.json")
    (run,) = recorded_runs(pd.read_csv(RECORDED / "batch_sizes.csv"), rate=way)[size][0]["run"].unique()
    return float(ledgers[run]["config"]["learning_rate"])


def memory_gb(batch_size: int, mixed: bool = False, encoder: str = "pvt_v2_b0", image_size: int = 224) -> float:
    """Memory of a training, from the recorded table."""
    keys = ["encoder", "image_size", "batch_size", "mixed_precision"]
    table = pd.read_csv(RECORDED / "activation_memory.csv").set_index(keys)["total_gb"]
    return float(table[encoder, image_size, batch_size, mixed])


def sizing(data: str, column: str) -> float:
    """What a data set of that size takes, from the recorded table."""
    return float(pd.read_csv(RECORDED / "sizing.csv").set_index("data").loc[data, column])


def sizing_facts() -> dict[str, Callable[[], float]]:
    """The README's table of larger data sets: GB, hours on this machine, minutes for the rest."""
    data = {"brats2020": "BraTS 2020", "brats2021": "BraTS 2021", "10000": "ten thousand"}
    columns = {
        "patients": ("patients", 1),
        "gb": ("cache_gb", 1),
        "prepare": ("preprocess_hours", 60),
        "epoch": ("epoch_hours_here", 1),
        "t4": ("epoch_hours_t4", 60),
        "a100": ("epoch_hours_8_a100", 60),
    }
    return {
        f"sizing_{name}_{key}": lambda row=row, column=column, times=times: times * sizing(row, column)
        for key, row in data.items()
        for name, (column, times) in columns.items()
    }


def recorded(definition: str) -> float:
    """A score of the recorded measurement on 29 real patients."""
    scores = pd.read_csv(RECORDED / "four_scores_real_patients.csv").set_index("definition")["score"]
    return float(scores[definition])


def recorded_by_the_published_code() -> float:
    """The score that the same 29 patients have by the published code's rule: it follows from three others."""
    empty = 1 - recorded("slice_empty0") / recorded("slice_tumour")  # share of slices without tumour
    left_alone = recorded("slice_empty1") - recorded("slice_empty0")
    return recorded("slice_empty0") + empty - left_alone


def slices_at_the_recorded_score() -> float:
    """Where the line of notebook 11's "11-two-scores" passes the recorded score per patient."""
    line = pd.read_csv(FIGURES / "11-two-scores.csv").query("patients == 'all'").sort_values("patient")
    return float(np.interp(recorded("patient"), line["patient"], line["slices"]))


def luck(checkpoints: int, patients: int) -> float:
    """What the best of equal checkpoints of 0.80 scores on so many patients, each with a chance of 0.05: on average."""
    means = np.random.default_rng(1).normal(0.8, 0.05 / math.sqrt(patients), (20_000, checkpoints))
    return float(means.max(axis=1).mean())


def exhibits() -> pd.DataFrame:
    """The recorded trainings of benchmarks/exhibits.py, a row for each epoch; "held_out": the mean of the patients."""
    table = pd.read_csv(RECORDED / "exhibits.csv")
    return table.assign(held_out=table[table.columns[6:]].mean(axis=1))


def exhibit_end(exhibit: str, column: str) -> float:
    """A column after the last epoch, the mean of the seeds."""
    return float(exhibits().query("exhibit == @exhibit").groupby("seed")[column].last().mean())


@cache
def choices() -> pd.DataFrame:
    """Of the sound exhibits, for each draw of four test patients: reported and new Dice, by who chose the epoch."""
    table = pd.read_csv(RECORDED / "exhibits.csv").query("exhibit == 'sound'")
    rows = []
    for _, run in table.groupby("seed"):
        scores = run[run.columns[6:]].to_numpy()  # (epochs, patients)
        everybody = range(scores.shape[1])
        for test in itertools.combinations(everybody, 4):
            on_test = scores[:, test].mean(axis=1)
            on_new = scores[:, [patient for patient in everybody if patient not in test]].mean(axis=1)
            for by, best in (("test", on_test.argmax()), ("validation", run["dice_patient"].argmax())):
                rows.append({"by": by, "reported": on_test[best], "new": on_new[best]})
    return pd.DataFrame(rows)


def beyond(step: str) -> pd.Series:
    """Of a step of benchmarks/beyond.py: for each seed, the mean Dice of the patients that are scored."""
    table = pd.read_csv(RECORDED / "beyond.csv").query("step == @step")
    return table[[column for column in table.columns if column.startswith("Phantom")]].mean(axis=1)


def beyond_validation(name: str) -> float:
    """Of a training of benchmarks/beyond.py: its validation patients' Dice after the last epoch, mean of its seeds."""
    table = pd.read_csv(RECORDED / "beyond_histories.csv")
    rows = table[table["run"].str.fullmatch(name + r"-seed\d")]
    return rows[rows["epoch"] == rows["epoch"].max()]["dice_patient"].mean()


def few_real(start: str, patients: int) -> pd.Series:
    """The Dice of each real patient held out, by benchmarks/few_patients.py."""
    return pd.read_csv(RECORDED / "few_real_patients.csv").query("start == @start and patients == @patients")["dice"]


def reference_results() -> dict[str, Callable[[], float]]:
    """The table of what can be compared with what, by the number of its row: `reference_results_1_whole` and so on."""
    table = pd.read_csv(RECORDED / "reference_results.csv")
    columns = ("whole", "whole_spread", "core", "enhancing")
    return {
        f"reference_results_{row}_{column}": lambda value=value: float(value)
        for column in columns
        for row, value in enumerate(table[column], start=1)
        if not pd.isna(value)
    }


def regions_on_real_patients() -> dict[str, Callable[[], float]]:
    """Of the shipped weights of three regions: mean and median Dice by region, and a region that isn't there."""
    table = pd.read_csv(RECORDED / "regions_real_patients.csv")
    facts = {}
    for region, dice in table.groupby("region")["dice"]:
        facts[f"regions_real_{region}"] = dice.mean
        facts[f"regions_real_{region}_median"] = dice.median
    (absent,) = table.loc[table["true_cm3"] == 0, "found_cm3"]
    return facts | {"regions_false_enhancing": lambda: 1000 * absent}


def from_the_literature(quantity: str) -> float:
    """A published value; its source stands beside it in the table."""
    return float(pd.read_csv(RECORDED / "published.csv", index_col="quantity").loc[quantity, "value"])


def published(run: str, column: str) -> float:
    """A value of the paper's results."""
    table = published_results().set_index("run")
    return float(table.loc[run, column])


def mscb_windows_percent(channels: int) -> float:
    """The share of an MSCB's parameters that are depth-wise windows, in percent."""
    block = MSCB(channels, channels)
    return 100 * sum(branch[0].weight.numel() for branch in block.msdc.branches) / count(block)


def drawn(figure: str, row: str | int, column: str) -> float:
    """A number behind a figure as it is committed: what the lesson measured on the first phantom patient."""
    table = pd.read_csv(FIGURES / f"{figure}.csv")
    return float(table.set_index(table.columns[0]).loc[row, column])


def msdc_width(sizes: Sequence[int], serial: bool = False, blocks: int = 1) -> int:
    """How many pixels wide the receptive field of MSDCs one after the other is, by the gradient."""
    chain = [nn.Sequential(*block.branches) if serial else block for block in (MSDC(64, sizes) for _ in range(blocks))]
    x = torch.randn(4, 64, 25, 25, requires_grad=True)
    nn.Sequential(*chain).eval()(x)[:, :, 12, 12].sum().backward()
    assert x.grad is not None
    return int((x.grad.abs().sum(dim=(0, 1)) > 0).any(dim=0).sum())


STAGES = ((32, 56), (64, 28), (160, 14), (256, 7))  # of B0 at 224 px: channels and places a side
EUCB_STEPS = ((256, 160, 7), (160, 64, 14), (64, 32, 28))  # of B0 at 224 px: channels in and out, and the side before


def lgags(count_one: Callable[[LGAG], int]) -> int:
    """What the three gates of B0 have together."""
    return sum(count_one(LGAG(width)) for width in (32, 64, 160))


def idle_biases(gate: LGAG) -> int:
    """Biases right before a batch norm."""
    return sum(part[0].bias.numel() for part in (gate.judge_decoder, gate.judge_skip, gate.agree))


def lgag_multiply_adds() -> int:
    """Of the three gates of B0 at 224 px."""
    total = 0
    for width, side in ((160, 14), (64, 28), (32, 56)):
        gate, features = LGAG(width).eval(), torch.zeros(1, width, side, side)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            gate(features, features)
        total += counter.get_total_flops() // 2
    return total


def transposed(width: int, width_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width_out, 3, stride=2, padding=1, output_padding=1)


def operations(module: nn.Module, width: int, side: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(1, width, side, side))
    return counter.get_total_flops()


def eucb_saving_operations() -> float:
    """How many times fewer multiply-adds the EUCBs of B0 need than transposed convolutions."""
    needed = {
        make: sum(operations(make(c, out), c, side) for c, out, side in EUCB_STEPS) for make in (EUCB, transposed)
    }
    return needed[transposed] / needed[EUCB]


def cosine_of_random_kernels() -> float:
    """The median size of the cosine between a random 3x3 kernel and the one of bilinear interpolation."""
    line = torch.tensor([0.25, 0.5, 0.25])
    directions = torch.randn(200_000, 9, generator=torch.Generator().manual_seed(0))
    return float(torch.cosine_similarity(directions, torch.outer(line, line).flatten()[None]).abs().median())


FACTS: dict[str, Callable[[], float]] = {
    # Settings: the profiles, the encoder's four stages, the blocks' defaults
    **{f"px_{name}": lambda name=name: PROFILES[name].image_size for name in ("quick", "paper")},
    "epochs_paper": lambda: PROFILES["paper"].epochs,
    "batch_small": lambda: batch_sizes()[0],
    "batch_middle": lambda: batch_sizes()[1],
    "batch_large": lambda: batch_sizes()[2],
    **{f"channels_{i}": lambda i=i: stages("pvt_v2_b0")[i - 1]["channels"] for i in (1, 2, 3, 4)},
    **{f"channels_b2_{i}": lambda i=i: stages("pvt_v2_b2")[i - 1]["channels"] for i in (3, 4)},
    **{f"stride_{i}": lambda i=i: stages("pvt_v2_b0")[i - 1]["stride"] for i in (1, 2, 3, 4)},
    **{
        f"side_{i}": lambda i=i: PROFILES["paper"].image_size / stages("pvt_v2_b0")[i - 1]["stride"]
        for i in (1, 2, 3, 4)
    },
    "resnet_channels_3": lambda: stages("resnet18")[-2]["channels"],
    "resnet_stride_first": lambda: stages("resnet18")[0]["stride"],
    "resnet_stride_fourth": lambda: stages("resnet18")[3]["stride"],
    "kernel_middle": lambda: default(create_model, "kernel_sizes")[1],
    "kernel_large": lambda: default(create_model, "kernel_sizes")[2],
    "branches": lambda: len(default(create_model, "kernel_sizes")),
    "expansion": lambda: default(create_model, "expansion"),
    "cab_reduction": lambda: default(CAB, "reduction"),
    "relu6_cap": lambda: nn.ReLU6()(torch.tensor(100.0)).item(),
    "half_bits": lambda: torch.finfo(torch.bfloat16).bits,
    "float_bits": lambda: torch.finfo(torch.float32).bits,
    "double_bits": lambda: torch.finfo(torch.float64).bits,
    # The network's size
    "decoder_parameters_b0": lambda: count(create_model("pvt_v2_b0").decoder),
    "decoder_parameters_b2": lambda: count(create_model("pvt_v2_b2").decoder),
    "decoder_all_operations_b0": lambda: decoder_all_operations("pvt_v2_b0"),
    "decoder_all_operations_b2": lambda: decoder_all_operations("pvt_v2_b2"),
    "decoder_with_plain_operations_b0": lambda: decoder_with_plain_operations("pvt_v2_b0"),
    "decoder_with_plain_operations_b2": lambda: decoder_with_plain_operations("pvt_v2_b2"),
    "decoder_parameters_b0_without_windows": lambda: count(create_model().decoder) - 35 * 2 * (32 + 64 + 160 + 256),
    "decoder_parameters_b0_357": lambda: count(create_model("pvt_v2_b0", kernel_sizes=(3, 5, 7)).decoder),
    "network_parameters_b0": lambda: count(create_model("pvt_v2_b0", in_channels=1)),
    "network_parameters_b2": lambda: count(create_model("pvt_v2_b2", in_channels=1)),
    "decoder_multiply_adds_b0": lambda: decoder_multiply_adds("pvt_v2_b0"),
    "decoder_multiply_adds_b2": lambda: decoder_multiply_adds("pvt_v2_b2"),
    **{
        f"encoder_times_{name}": lambda model=f"pvt_v2_{name}": (
            count(create_model(model).encoder) / count(create_model(model).decoder)
        )
        for name in ("b0", "b2")
    },
    "lift_parameters": lambda: count(create_model(in_channels=1).lift),
    "mscam4_parameters_b0": lambda: count(create_model("pvt_v2_b0").decoder.mscam4),
    "mscam1_output_mb": lambda: 32 * 56 * 56 * 4 / 2**20,
    "mscam1_kept_times": lambda: traced("decoder.mscam1", "kept MB") / traced("decoder.mscam1", "output MB"),
    "network_kept_mb_b0": lambda: traced("sum", "kept MB"),
    "network_parameters_mb_b0": lambda: 4 * count(create_model("pvt_v2_b0")) / 2**20,
    # Published: Rahman et al. 2024 (arXiv 2405.06880)
    "paper_decoder_millions_b0": lambda: from_the_literature("paper_decoder_millions_b0"),
    "paper_decoder_millions_b2": lambda: from_the_literature("paper_decoder_millions_b2"),
    "paper_decoder_gflops_b0": lambda: from_the_literature("paper_decoder_gflops_b0"),
    "paper_decoder_gflops_b2": lambda: from_the_literature("paper_decoder_gflops_b2"),
    # Published: Uzor et al. 2025 (arXiv 2509.05431)
    "paper_best_dice_25": lambda: published("batch size 25", "best_dice"),
    "paper_best_dice_first": lambda: published("first model", "best_dice"),
    "paper_mean_dice_first": lambda: published("first model", "mean_dice"),
    "paper_mean_dice_spread_first": lambda: published("first model", "mean_dice_spread"),
    # Measured once on real patients, which can't be shipped
    "recorded_slice_empty0": lambda: recorded("slice_empty0"),
    "recorded_slice_empty1": lambda: recorded("slice_empty1"),
    "recorded_slice_tumour": lambda: recorded("slice_tumour"),
    "recorded_patient": lambda: recorded("patient"),
    "recorded_share": lambda: recorded("slice_empty0") / recorded("slice_tumour"),
    "recorded_published": recorded_by_the_published_code,
    "two_scores_line": slices_at_the_recorded_score,
    "luck_20_4": lambda: luck(20, 4),
    "exhibits_held_out": lambda: len(exhibits().columns[6:]) - 1,
    "splits_of_sixteen": lambda: math.comb(16, 4),
    **{
        f"exhibit_{exhibit}_{column}": lambda exhibit=exhibit, column=column: exhibit_end(exhibit, column)
        for exhibit in ("sound", "stuck")
        for column in ("train_loss", "val_loss", "held_out")
    },
    **{
        f"choice_{column}_{by}": lambda by=by, column=column: choices().query("by == @by")[column].mean()
        for by, column in (("test", "reported"), ("validation", "reported"), ("test", "new"))
    },
    "choice_optimism": lambda: choices().query("by == 'test'").eval("reported - new").mean(),
    "choice_optimism_spread": lambda: choices().query("by == 'test'").eval("reported - new").std(),
    "reference_whole_tumour_dice": lambda: 0.861,  # EMCAD-B2 on 48 held-out patients of the Decathlon, 200 epochs
    # Exercises
    "exercise_00_dice": lambda: 2 * 30 / (40 + 60),
    "exercise_00_slip": lambda: 30 / (40 + 60),
    "looks_in_quick": lambda: PROFILES["quick"].epochs * PROFILES["quick"].slices_per_epoch,
    "toy_empty_pixels": lambda: 100 * 100 - 10 * 10,
    "exercise_09_updates": lambda: 10 * math.ceil(600 / 6),
    "exercise_11_zero": lambda: 0.4 * 0.8,
    "exercise_11_one": lambda: 0.4 * 0.8 + 0.6,
    # The data
    "population_patients": lambda: int(re.search(r"(\d+) real BraTS patients", ABOUT_POPULATION)[1]),
    "population_middle_percent": lambda: PERCENTILES[-1] - PERCENTILES[0],
    "measured_quantities": lambda: len(phantoms_and_population()),
    "training_slices_thousand": lambda: training_slices_of_brats_2020(),
    "typical_tumour_cm3": lambda: median_of_real_patients("wt"),
    "typical_tumour_cm": lambda: 2 * equal_volume_radius(median_of_real_patients("wt")) / 10,
    "test_percent": lambda: 100 * default(split_patients, "fractions")[2],
    "affine_side": lambda: len(AFFINE),
    "core_bit": lambda: 2 ** REGIONS.index("core"),
    "enhancing_bit": lambda: 2 ** REGIONS.index("enhancing"),
    "enhancing_bits": lambda: BRATS_2020.regions(np.array([BRATS_2020.enhancing])).item(),
    **{f"impossible_bits_{i}": lambda i=i: impossible_regions()[i] for i in range(4)},
    "enhancing_label_2020": lambda: BRATS_2020.enhancing,
    "enhancing_label_2023": lambda: BRATS_2023.enhancing,
    "necrosis_label_decathlon": lambda: DECATHLON.necrosis,
    "enhancing_label_decathlon": lambda: DECATHLON.enhancing,
    "clip": lambda: CLIP,
    "side_of_a_brats_file": lambda: from_the_literature("side_of_a_brats_file"),
    "kaggle_gb": lambda: constant("data_scripts/download_brats.py", "KAGGLE_BYTES") / 1e9,
    "decathlon_gb": lambda: constant("data_scripts/download_brats.py", "DECATHLON_BYTES") / 1e9,
    "real_tumour_slice_share": lambda: float(pd.read_csv(POPULATION, index_col="quantity").loc["share", "p50"]),
    "quantisation_levels": lambda: 2 * CLIP / STEP + 1,
    "quantisation_error": lambda: STEP / 2,
    "canvas_mm": lambda: CANVAS_MM,
    "brats_2020_patients": lambda: PROFILES["paper"].patients,
    "iqr_of_a_normal": lambda: NormalDist().inv_cdf(0.75) - NormalDist().inv_cdf(0.25),
    "template_people": lambda: from_the_literature("template_people"),
    "slices_of_a_brats_file": lambda: from_the_literature("slices_of_a_brats_file"),
    "real_tumour_slice_percent": lambda: 100 * FACTS["real_tumour_slice_share"](),
    "raters_agree_whole": lambda: from_the_literature("raters_agree_whole"),
    # 03 and 04: what the blocks cost
    "full_convolution_64_5": lambda: count(nn.Conv2d(64, 64, 5, bias=False)),
    "depthwise_convolution_64_5": lambda: count(nn.Conv2d(64, 64, 5, groups=64, bias=False)),
    "mscb_windows_percent_32": lambda: mscb_windows_percent(32),
    "mscb_windows_percent_256": lambda: mscb_windows_percent(256),
    "full_branches_256": lambda: sum(count(nn.Conv2d(512, 512, size, bias=False)) for size in (1, 3, 5)),
    "mscb_parameters_b0": lambda: sum(count(MSCB(c, c)) for c, _ in STAGES),
    "mscb_multiply_adds_b0": lambda: sum(operations(MSCB(c, c), c, side) for c, side in STAGES) // 2,
    "mscb_multiply_adds_160": lambda: operations(MSCB(160, 160), 160, 14) // 2,
    "mscb_share_b0": lambda: FACTS["mscb_parameters_b0"]() / FACTS["paper_decoder_millions_b0"]() / 1e4,
    # 03: what the kernels see
    "spot_middle_5": lambda: drawn("03-spot-filter", "5 pixels", "middle"),
    "spot_middle_15": lambda: drawn("03-spot-filter", "15 pixels", "middle"),
    "spot_middle_31": lambda: drawn("03-spot-filter", "31 pixels", "middle"),
    "example_tumour_across": lambda: drawn("03-spot-filter", "31 pixels", "across"),
    **{
        f"spot_size_{i}": lambda i=i: int(pd.read_csv(FIGURES / "03-spot-filter.csv")["name"][i - 1].split()[0])
        for i in (1, 2, 3)
    },
    "widest_window": lambda: 5 * 32,
    "branches_alike_3": lambda: drawn("03-branches", "3x3", "alike"),
    "branches_alike_5": lambda: drawn("03-branches", "5x5", "alike"),
    "width_135_parallel": lambda: msdc_width((1, 3, 5)),
    "width_135_serial": lambda: msdc_width((1, 3, 5), serial=True),
    "width_357_parallel": lambda: msdc_width((3, 5, 7)),
    "width_357_serial": lambda: msdc_width((3, 5, 7), serial=True),
    "width_357_two": lambda: msdc_width((3, 5, 7), blocks=2),
    "width_135_three": lambda: msdc_width((1, 3, 5), blocks=3),
    "random_middle": lambda: drawn("03-trained-fields", "random weights", "the middle"),
    "trained_middle_1": lambda: drawn("03-trained-fields", "trained, stage 1", "the middle"),
    "trained_middle_2": lambda: drawn("03-trained-fields", "trained, stage 2", "the middle"),
    "trained_middle_3": lambda: drawn("03-trained-fields", "trained, stage 3", "the middle"),
    "pixel_half_random": lambda: drawn("03-field-of-a-pixel", "random weights", "half_within_mm"),
    "pixel_half_trained": lambda: drawn("03-field-of-a-pixel", "trained", "half_within_mm"),
    # 04: which channels and where
    "cab_parameters_256": lambda: count(CAB(256)),
    "cab_parameters_b0": lambda: sum(count(CAB(c)) for c, _ in STAGES),
    "cab_multiply_adds_b0": lambda: sum(operations(CAB(c), c, side) for c, side in STAGES) // 2,
    "sab_multiply_adds_b0": lambda: sum(operations(SAB(), c, side) for c, side in STAGES) // 2,
    "mscam_parameters_b0": lambda: sum(count(MSCAM(c, shared_sab=SAB())) for c, _ in STAGES) + count(SAB()),
    "mscam_multiply_adds_b0": lambda: sum(operations(MSCAM(c), c, side) for c, side in STAGES) // 2,
    "attention_share_b0": lambda: 100 * (1 - FACTS["mscb_parameters_b0"]() / FACTS["mscam_parameters_b0"]()),
    "attention_work_share_b0": lambda: 100 * (1 - FACTS["mscb_multiply_adds_b0"]() / FACTS["mscam_multiply_adds_b0"]()),
    "cab_open_1": lambda: drawn("04-channel-knobs", 1, "open beyond half"),
    "cab_open_4": lambda: drawn("04-channel-knobs", 4, "open beyond half"),
    "cab_lowest_4": lambda: drawn("04-channel-knobs", 4, "lowest knob"),
    "cab_spread_1": lambda: drawn("04-two-slices", 1, "spread over the channels"),
    "cab_spread_4": lambda: drawn("04-two-slices", 4, "spread over the channels"),
    "cab_change_1": lambda: drawn("04-two-slices", 1, "change from slice to slice"),
    "cab_change_4": lambda: drawn("04-two-slices", 4, "change from slice to slice"),
    "flair_maximum_least": lambda: drawn("04-two-slices", 1, "maximum, least tumour"),
    "flair_maximum_most": lambda: drawn("04-two-slices", 1, "maximum, most tumour"),
    "cab_open_tells_4": lambda: drawn("04-open-and-closed-channels", 4, "most open: tells"),
    "cab_closed_tells_4": lambda: drawn("04-open-and-closed-channels", 4, "most closed: tells"),
    "cab_closed_knob_4": lambda: drawn("04-open-and-closed-channels", 4, "most closed: knob"),
    "sab_lowest_1": lambda: drawn("04-where-sab-looks", "stage 1", "lowest"),
    "sab_lowest_4": lambda: drawn("04-where-sab-looks", "stage 4", "lowest"),
    "sab_highest_4": lambda: drawn("04-where-sab-looks", "stage 4", "highest"),
    "full_matrix_256": lambda: count(nn.Linear(256, 256, bias=False)),
    # 05: the attention gate
    "correlation_of_equal_voices": lambda: 1 / math.sqrt(2),  # of one of two independent ones with their sum
    "lgag_full_3x3_160": lambda: count(nn.Conv2d(160, 80, 3, bias=False)),
    "lgag_grouped_3x3_160": lambda: LGAG(160).judge_skip[0].weight.numel(),
    "lgag_all_full_3x3": lambda: lgags(lambda gate: 2 * 9 * gate.judge_skip[0].in_channels * gate.agree[0].in_channels),
    "lgag_filter_sees": lambda: LGAG(32).judge_skip[0].weight.shape[1],
    "lgag_last_norm": lambda: count(LGAG(32).agree[1]),
    "lgag_idle_biases_b0": lambda: lgags(idle_biases),
    "lgag_parameters_b0": lambda: lgags(count),
    "lgag_share_b0": lambda: 100 * lgags(count) / count(create_model("pvt_v2_b0").decoder),
    "sab_parameters": lambda: count(SAB()),
    "decoder_attention_share_b0": lambda: (
        100
        * sum(FACTS[name]() for name in ("cab_parameters_b0", "sab_parameters", "lgag_parameters_b0"))
        / FACTS["decoder_parameters_b0"]()
    ),
    "lgag_grouping_saves_160": lambda: FACTS["lgag_full_3x3_160"]() / FACTS["lgag_grouped_3x3_160"](),
    "lgag_for_each_channel_160": lambda: 1 + 80 * 159 / count(LGAG(160)) + 3 * 159 / count(LGAG(160)),
    "lgag_share_multiply_adds_b0": lambda: lgag_multiply_adds() / FACTS["paper_decoder_gflops_b0"]() / 1e7,
    "initial_spread": lambda: create_model().decoder.eucb3.pointwise.weight.std().item(),
    "sigmoid_of_minus_one": lambda: 1 / (1 + math.exp(1)),
    "sigmoid_of_one": lambda: 1 / (1 + math.exp(-1)),
    # 06: up-convolution and heads
    "eucb_parameters_b0": lambda: sum(count(EUCB(c, out)) for c, out, _ in EUCB_STEPS),
    "transposed_parameters_b0": lambda: sum(count(transposed(c, out)) for c, out, _ in EUCB_STEPS),
    "eucb_saving_parameters": lambda: FACTS["transposed_parameters_b0"]() / FACTS["eucb_parameters_b0"](),
    "eucb_saving_multiply_adds": lambda: eucb_saving_operations(),
    "paper_decoder_million_multiply_adds_b0": lambda: 1000 * FACTS["paper_decoder_gflops_b0"](),
    "eucb_share_parameters_b0": lambda: FACTS["eucb_parameters_b0"]() / FACTS["paper_decoder_millions_b0"]() / 1e4,
    "eucb_share_multiply_adds_b0": lambda: (
        sum(operations(EUCB(c, out), c, side) for c, out, side in EUCB_STEPS) / 2e7 / FACTS["paper_decoder_gflops_b0"]()
    ),
    "cosine_of_random_kernels": lambda: cosine_of_random_kernels(),
    "head_parameters_b0": lambda: count(create_model("pvt_v2_b0").heads),
    "decoder_and_heads_b0": lambda: FACTS["decoder_parameters_b0"]() + FACTS["head_parameters_b0"](),
    "sigmoid_of_zero": lambda: 1 / (1 + math.exp(0)),
    "sigmoid_of_minus_two": lambda: 1 / (1 + math.exp(2)),
    "sigmoid_of_two": lambda: 1 / (1 + math.exp(-2)),
    "mutation_subsets": lambda: 2**4 - 1,
    "one_to_nine": lambda: sum(range(1, 10)),
    "align_corners_slide": lambda: 224 / 7 / 2 - 0.5,  # from the centre of a coarse pixel to that of the first fine one
    # 08 and 09
    "sizes_compared_pairs": lambda: len(pd.read_csv(FIGURES / "09-gradient-agreement.csv")),
    "paper_best_batch": lambda: published_results().set_index("batch_size")["best_dice"].idxmax(),
    # The reference weights
    "reference_px": lambda: int(load_weights().metadata["image_size"]),
    "reference_phantoms": lambda: made_with("patients"),
    "reference_training": lambda: part("train", made_with("patients")),
    "reference_batch": lambda: made_with("batch-size"),
    "reference_epochs": lambda: made_with("epochs"),
    "reference_updates": lambda: (
        int(load_weights().metadata["epoch"]) * made_with("slices-per-epoch") // made_with("batch-size")
    ),
    "reference_validation": lambda: made_with("validate-patients"),
    "phantom_version": lambda: PHANTOM_VERSION,
    "reference_phantom_dice": lambda: float(load_weights().metadata["dice_patient"]),
    "reference_megabytes": lambda: REFERENCE_WEIGHTS.stat().st_size / 1e6,
    "real_mean_axial": lambda: pd.read_csv(RECORDED / "refinements_real_patients.csv")["mean"].iloc[0],
    "first_training_half": lambda: of_training("first")[0.5],
    "second_training_half": lambda: of_training("second")[0.5],
    "first_training_best": lambda: of_training("first").max(),
    "second_training_best": lambda: of_training("second").max(),
    "medians_that_fit": lambda: phantoms_and_population()["median fits"].sum(),
    "spreads_that_fit": lambda: phantoms_and_population()["spread"].between(0.5, 2).sum(),
    "paper_ablation_dice_eucb": lambda: from_the_literature("paper_ablation_dice_eucb"),
    "paper_ablation_dice_all": lambda: from_the_literature("paper_ablation_dice_all"),
    "paper_ablation_millions_mscam": lambda: from_the_literature("paper_ablation_millions_mscam"),
    "without_lgag_millions_b2": lambda: count(create_model("pvt_v2_b2", variant="no-lgag").decoder) / 1e6,
    "block_ablation_complete_highest": lambda: block_ablation("complete").max(),
    "block_ablation_complete_lowest": lambda: block_ablation("complete").min(),
    "block_ablation_without_lgag": lambda: block_ablation("no-lgag").mean(),
    "block_ablation_concatenation": lambda: block_ablation("concatenation").mean(),
    "block_ablation_b2": lambda: block_ablation("complete", "pvt_v2_b2").mean(),
    "block_ablation_slices": lambda: pd.read_csv(RECORDED / "block_ablation.csv")["slices"].unique().item(),
    "block_ablation_training": lambda: part("train", made_by("block_ablation", "patients").item()),
    "block_ablation_unseen": lambda: made_by("block_ablation", "patients").item() - FACTS["block_ablation_training"](),
    "block_ablation_px": lambda: constant("benchmarks/block_ablation.py", "SETTINGS")["image_size"],
    "block_ablation_batch": lambda: constant("benchmarks/block_ablation.py", "SETTINGS")["batch_size"],
    "epochs_quick": lambda: PROFILES["quick"].epochs,
    "level": lambda: LEVEL,
    "paper_rate": lambda: study_rate("paper", 16),
    "rate_middle": lambda: study_rate("fixed", 16),
    "rate_small_scaled": lambda: study_rate("scaled", 6),
    "rate_large_scaled": lambda: study_rate("scaled", 25),
    "study_trainings": lambda: len(read_json(RECORDED / "batch_sizes.json")),
    "study_updates": lambda: study("updates"),
    "study_speed_large": lambda: study("seconds", size=6) / study("seconds", size=25),
    "study_samples": lambda: study("samples"),
    "study_samples_small": lambda: study("samples", "updates", size=6),
    "study_samples_large": lambda: study("samples", "updates", size=25),
    "study_between_sizes": lambda: np.ptp([np.mean(dice) for dice in study_ends("last_patient")]),
    "study_between_seeds": lambda: np.mean([np.ptp(dice) for dice in study_ends("last_patient")]),
    "study_dice_small": lambda: study("last_patient", "updates", size=6),
    "study_dice_large": lambda: study("last_patient", "updates", size=25),
    "study_instability_parts": lambda: study("instability", size=25, accumulate=5),
    "study_instability_large": lambda: study("instability", size=25),
    "study_settled_updates_small": lambda: study("settled_updates", size=6),
    "study_settled_updates_large": lambda: study("settled_updates", size=25),
    **study_ranges(),
    "study_between_sizes_scaled": lambda: np.ptp([np.mean(dice) for dice in study_ends("last_patient", "scaled")]),
    "study_between_seeds_scaled": lambda: np.mean([np.ptp(dice) for dice in study_ends("last_patient", "scaled")]),
    "study_detectable": lambda: detectable_difference(study_ends("last_patient")),
    "study_loss_large_lowest": lambda: min(study_ends("last_val_loss")[-1]),
    "study_loss_large_highest": lambda: max(study_ends("last_val_loss")[-1]),
    "study_loss_others_lowest": lambda: min(map(min, study_ends("last_val_loss")[:-1])),
    "study_loss_others_highest": lambda: max(map(max, study_ends("last_val_loss")[:-1])),
    "study_loss_small_fixed": lambda: study("last_val_loss", size=6),
    "study_loss_small_scaled": lambda: study("last_val_loss", rate="scaled", size=6),
    "study_loss_large_fixed": lambda: study("last_val_loss", size=25),
    "study_loss_large_scaled": lambda: study("last_val_loss", rate="scaled", size=25),
    "study_settled_planned_middle": lambda: study("settled_updates", "updates"),
    "study_settled_planned_large": lambda: study("settled_updates", "updates", size=25),
    "study_epoch": lambda: study("samples") / study("epochs"),
    "memory_b2_16_mixed": lambda: memory_gb(16, mixed=True, encoder="pvt_v2_b2"),
    "memory_growth_b0": lambda: memory_gb(25) / memory_gb(6),
    "memory_growth_b2_mixed": lambda: memory_gb(25, True, "pvt_v2_b2") / memory_gb(6, True, "pvt_v2_b2"),
    "study_parts": lambda: 25 / pd.read_csv(RECORDED / "batch_sizes.csv")["accumulate"].max(),
    "step_batch": lambda: training_step("plain", "batch_size"),
    "step_px": lambda: training_step("plain", "image_size"),
    "step_threads": lambda: training_step("plain", "threads"),
    "step_recipe_times": lambda: training_step("together", "times_as_fast"),
    "step_bf16_times": lambda: training_step("bf16", "times_as_fast"),
    "step_fused_times": lambda: training_step("AdamW", "times_as_fast"),
    "memory_b0_25": lambda: memory_gb(25),
    "memory_b2_25": lambda: memory_gb(25, encoder="pvt_v2_b2"),
    "memory_b2_25_mixed": lambda: memory_gb(25, mixed=True, encoder="pvt_v2_b2"),
    **sizing_facts(),
    "ablation_patients": lambda: made_by("phantom_ablation", "patients").item(),
    "ablation_training": lambda: part("train", made_by("phantom_ablation", "patients").item()),
    "ablation_px": lambda: constant("benchmarks/phantom_ablation.py", "SETTINGS")["image_size"],
    "ablation_first_version": lambda: made_by("phantom_ablation", "phantom_version").iloc[0],
    "ablation_later_version": lambda: made_by("phantom_ablation", "phantom_version").iloc[1:].item(),
    "ablation_slices": lambda: pd.read_csv(RECORDED / "phantom_ablation.csv")["slices"].unique().item(),
    "ablation_complete": lambda: ablation("nothing").mean(),
    "ablation_complete_lowest": lambda: ablation("nothing").min(),
    "ablation_without_shapes": lambda: ablation("shapes").mean(),
    "ablation_first_complete": lambda: ablation("nothing").iloc[0],
    "ablation_first_shapes": lambda: ablation("shapes").iloc[0],
    "reference_real_mean": lambda: reference_on_real_patients().mean(),
    "reference_real_median": lambda: reference_on_real_patients().median(),
    "reference_real_lowest": lambda: reference_on_real_patients().min(),
    "reference_real_highest": lambda: reference_on_real_patients().max(),
    "few_scratch_1": lambda: few_real("scratch", 1).mean(),
    "few_scratch_8": lambda: few_real("scratch", 8).mean(),
    "few_phantom_0": lambda: few_real("phantom", 0).mean(),
    "few_phantom_8": lambda: few_real("phantom", 8).mean(),
    "few_gentle_lowest": lambda: min(few_real("gentle", count).mean() for count in (1, 2, 4, 8)),
    "few_gentle_highest": lambda: max(few_real("gentle", count).mean() for count in (1, 2, 4, 8)),
    "few_gentle_fall": lambda: max(
        (few_real("phantom", 0).to_numpy() - few_real("gentle", count).to_numpy()).max() for count in (1, 2, 4, 8)
    ),
    "beyond_untouched": lambda: beyond("reference weights as they are").mean(),
    "beyond_from_reference": lambda: beyond("from the reference weights").mean(),
    "beyond_colour_by_chance": lambda: math.comb(9, 3) // 2,  # three runs all on one side of six, either side
    "beyond_validation_gamma": lambda: beyond_validation("augmentation-gamma-only"),
    "beyond_validation_none": lambda: beyond_validation("augmentation-none"),
    "beyond_validation_but_gamma": lambda: beyond_validation("augmentation-all-but-gamma"),
    "beyond_validation_baseline": lambda: beyond_validation("baseline"),
    "beyond_first_three": lambda: beyond("baseline").iloc[:3].mean(),
    "beyond_other_three": lambda: beyond("baseline").iloc[3:].mean(),
    "beyond_large_batch": lambda: int(
        re.search(r"batch of (\d+)", " ".join(pd.read_csv(RECORDED / "beyond.csv")["step"]))[1]
    ),
    "beyond_updates": lambda: (
        pd.read_csv(RECORDED / "beyond_histories.csv").query("run == 'baseline-seed0'")["updates"].max()
    ),
    **reference_results(),
    **regions_on_real_patients(),
    "regions_phantom_dice": lambda: float(load_weights("regions").metadata["dice_patient"]),
}
