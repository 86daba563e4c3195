"""Every number that the lessons and the README state, computed again.

A number in prose carries a mark: ``506,507<!--fact:decoder_parameters_b0-->``. The name is a key of ``FACTS``.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from emcad_lib import create_model, load_weights
from emcad_lib.data.population import POPULATION
from emcad_lib.data.prepare import CLIP, STEP
from emcad_lib.data.slices import CANVAS_MM
from emcad_lib.lesson import RECORDED
from emcad_lib.model.blocks import CAB, EUCB, LGAG, MSCB
from emcad_lib.profiles import PROFILES
from emcad_lib.train.published import published_results


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

    Multiply-adds of convolutions, and one operation for each number that anything else touches (BN: two).
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


def reference_on_real_patients() -> pd.Series:
    """Dice of the shipped weights on ten real patients, recorded once for each file of weights."""
    return pd.read_csv(RECORDED / "reference_weights_real_patients.csv")["dice"]


def best_of_training(training: str) -> float:
    """Mean Dice on ten real patients of one of the trainings that were tried, with the threshold that suits it best."""
    table = pd.read_csv(RECORDED / "trainings_real_patients.csv")
    return float(table.loc[table["training"] == training, "mean"].max())


def phantoms_and_population() -> pd.DataFrame:
    """The 128 phantoms that the shipped weights were trained on beside 58 real patients, by compare_phantom.py."""
    return pd.read_csv(RECORDED / "phantoms_and_population.csv", index_col="quantity")


def ablation(left_out: str) -> float:
    """Mean Dice on ten real patients after training on phantoms without an ingredient, over the seeds."""
    table = pd.read_csv(RECORDED / "phantom_ablation.csv")
    return float(table.loc[table["left_out"] == left_out, "dice"].mean())


def recorded(definition: str) -> float:
    """A score of the recorded measurement on 29 real patients."""
    scores = pd.read_csv(RECORDED / "four_scores_real_patients.csv").set_index("definition")["score"]
    return float(scores[definition])


def published(run: str, column: str) -> float:
    """A value of the paper's results."""
    table = published_results().set_index("run")
    return float(table.loc[run, column])


def mscb_windows_percent(channels: int) -> float:
    """The share of an MSCB's parameters that are depth-wise windows, in percent."""
    block = MSCB(channels, channels)
    return 100 * sum(branch[0].weight.numel() for branch in block.msdc.branches) / count(block)


EUCB_STEPS = ((256, 160, 7), (160, 64, 14), (64, 32, 28))  # of B0 at 224 px: channels in and out, and the side before


def lgags(count_one: Callable[[LGAG], int]) -> int:
    """What the three gates of B0 have together."""
    return sum(count_one(LGAG(width)) for width in (32, 64, 160))


def idle_biases(gate: LGAG) -> int:
    """Biases right before a batch norm."""
    return sum(part[0].bias.numel() for part in (gate.judge_decoder, gate.judge_skip, gate.agree))


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


FACTS: dict[str, Callable[[], float]] = {
    # The network's size
    "decoder_parameters_b0": lambda: count(create_model("pvt_v2_b0").decoder),
    "decoder_parameters_b2": lambda: count(create_model("pvt_v2_b2").decoder),
    "decoder_all_operations_b0": lambda: decoder_all_operations("pvt_v2_b0"),
    "decoder_all_operations_b2": lambda: decoder_all_operations("pvt_v2_b2"),
    "decoder_parameters_b0_without_windows": lambda: count(create_model().decoder) - 35 * 2 * (32 + 64 + 160 + 256),
    "decoder_parameters_b0_357": lambda: count(create_model("pvt_v2_b0", kernel_sizes=(3, 5, 7)).decoder),
    "decoder_parameters_b2_357": lambda: count(create_model("pvt_v2_b2", kernel_sizes=(3, 5, 7)).decoder),
    "network_parameters_b0": lambda: count(create_model("pvt_v2_b0", in_channels=1)),
    "network_parameters_b2": lambda: count(create_model("pvt_v2_b2", in_channels=1)),
    "decoder_multiply_adds_b0": lambda: decoder_multiply_adds("pvt_v2_b0"),
    "decoder_multiply_adds_b2": lambda: decoder_multiply_adds("pvt_v2_b2"),
    # Published: Rahman et al. 2024 (arXiv 2405.06880)
    "paper_decoder_millions_b0": lambda: 0.506,
    "paper_decoder_millions_b2": lambda: 1.91,
    "paper_decoder_gflops_b0": lambda: 0.11,
    "paper_decoder_gflops_b2": lambda: 0.381,
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
    "reference_whole_tumour_dice": lambda: 0.861,  # EMCAD-B2 on 48 held-out patients of the Decathlon, 200 epochs
    # Exercises
    "exercise_11_zero": lambda: 0.4 * 0.8,
    "exercise_11_one": lambda: 0.4 * 0.8 + 0.6,
    # The data
    "real_tumour_slice_share": lambda: float(pd.read_csv(POPULATION, index_col="quantity").loc["share", "p50"]),
    "quantisation_levels": lambda: 2 * CLIP / STEP + 1,
    "quantisation_error": lambda: STEP / 2,
    "canvas_mm": lambda: CANVAS_MM,
    "brats_2020_patients": lambda: PROFILES["paper"].patients,
    "iqr_of_a_normal": lambda: NormalDist().inv_cdf(0.75) - NormalDist().inv_cdf(0.25),
    "raters_agree_whole": lambda: 0.85,  # Dice of two raters, whole tumour: Menze et al. 2015 (the BraTS benchmark)
    # 03 and 04: what the blocks cost
    "full_convolution_64_5": lambda: count(nn.Conv2d(64, 64, 5, bias=False)),
    "depthwise_convolution_64_5": lambda: count(nn.Conv2d(64, 64, 5, groups=64, bias=False)),
    "mscb_windows_percent_256": lambda: mscb_windows_percent(256),
    "full_branches_256": lambda: sum(count(nn.Conv2d(512, 512, size, bias=False)) for size in (1, 3, 5)),
    "cab_parameters_256": lambda: count(CAB(256)),
    "full_matrix_256": lambda: count(nn.Linear(256, 256, bias=False)),
    # 05: the attention gate
    "lgag_full_3x3_160": lambda: count(nn.Conv2d(160, 80, 3, bias=False)),
    "lgag_grouped_3x3_160": lambda: LGAG(160).judge_skip[0].weight.numel(),
    "lgag_all_full_3x3": lambda: lgags(lambda gate: 2 * 9 * gate.judge_skip[0].in_channels * gate.agree[0].in_channels),
    "lgag_idle_biases_b0": lambda: lgags(idle_biases),
    "lgag_parameters_b0": lambda: lgags(count),
    "lgag_share_b0": lambda: 100 * lgags(count) / count(create_model("pvt_v2_b0").decoder),
    "initial_spread": lambda: create_model().decoder.eucb3.pointwise.weight.std().item(),
    "sigmoid_of_minus_one": lambda: 1 / (1 + math.exp(1)),
    "sigmoid_of_one": lambda: 1 / (1 + math.exp(-1)),
    # 06: up-convolution and heads
    "eucb_parameters_b0": lambda: sum(count(EUCB(c, out)) for c, out, _ in EUCB_STEPS),
    "transposed_parameters_b0": lambda: sum(count(transposed(c, out)) for c, out, _ in EUCB_STEPS),
    "eucb_saving_parameters": lambda: FACTS["transposed_parameters_b0"]() / FACTS["eucb_parameters_b0"](),
    "eucb_saving_multiply_adds": lambda: eucb_saving_operations(),
    "head_parameters_b0": lambda: count(create_model("pvt_v2_b0").heads),
    "sigmoid_of_minus_two": lambda: 1 / (1 + math.exp(2)),
    "sigmoid_of_two": lambda: 1 / (1 + math.exp(-2)),
    "align_corners_slide": lambda: 224 / 7 / 2 - 0.5,  # from the centre of a coarse pixel to that of the first fine one
    # The reference weights
    "reference_phantom_dice": lambda: float(load_weights().metadata["dice_patient"]),
    "real_mean_axial": lambda: pd.read_csv(RECORDED / "refinements_real_patients.csv")["mean"].iloc[0],
    "first_training_best": lambda: best_of_training("first"),
    "second_training_best": lambda: best_of_training("second"),
    "medians_that_fit": lambda: phantoms_and_population()["median fits"].sum(),
    "spreads_that_fit": lambda: phantoms_and_population()["spread"].between(0.5, 2).sum(),
    "ablation_slices": lambda: pd.read_csv(RECORDED / "phantom_ablation.csv")["slices"].unique().item(),
    "ablation_complete": lambda: ablation("nothing"),
    "ablation_without_shapes": lambda: ablation("shapes"),
    "ablation_without_regions": lambda: ablation("regions"),
    "reference_real_mean": lambda: reference_on_real_patients().mean(),
    "reference_real_median": lambda: reference_on_real_patients().median(),
    "reference_real_lowest": lambda: reference_on_real_patients().min(),
    "reference_real_highest": lambda: reference_on_real_patients().max(),
}
