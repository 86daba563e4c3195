"""The pages of solutions teach: each exercise has its idea, its usual slip and a step further, and what they say holds.

What a page says in words about a wrong answer stands below with a computation that shows it, most of them by the page's
own functions.
"""

from __future__ import annotations

import ast
import copy
import itertools
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emcad_lib import create_model
from emcad_lib.data.labels import region_mask
from emcad_lib.evaluate.metrics import dice
from emcad_lib.model.blocks import CAB, LGAG, MSCAM, MSCB, SAB
from emcad_lib.train.losses import dice_loss, mutation_loss, segmentation_loss

SOLUTIONS = Path(__file__).parents[2] / "notebooks" / "solutions"
BEING_REBUILT = "13_beyond_the_paper_solutions"


# ---- What stands beside an answer ------------------------------------------------------------------------------------


def test_each_exercise_has_an_idea_before_its_code_and_a_meaning_a_slip_and_a_step_further_behind_it(solutions):
    if str(solutions) == BEING_REBUILT:
        return
    text = "\n".join(cell.source if cell.cell_type == "markdown" else "<code>" for cell in solutions.cells)
    parts = re.split(r"^## (?=\d)", text, flags=re.M)[1:]
    order = r"\*\*The idea\.\*\*.*<code>.*\*\*What it says\.\*\*.*\*\*The usual slip\.\*\*.*\*\*One step further\.\*\*"

    assert len(parts) >= 3
    assert [part.splitlines()[0] for part in parts if not re.search(order, part, flags=re.S)] == []


# ---- What the pages say in words -------------------------------------------------------------------------------------

CLAIMS: list[tuple[str, tuple[str, ...], Callable[[], object]]] = []


def says(number: str, *phrases: str) -> Callable:
    """The page of that number says each of the phrases, and the function computes that it's so."""

    def keep(function: Callable[[], object]) -> Callable[[], object]:
        CLAIMS.append((number, phrases, function))
        return function

    return keep


@cache
def prose(number: str) -> str:
    """The text of a page, without marks."""
    (path,) = SOLUTIONS.glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    return re.sub(r"<!--.*?-->", "", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))


@cache
def page(number: str) -> dict[str, Any]:
    """Functions and classes of a page, by name."""
    (path,) = SOLUTIONS.glob(f"{number}_*.ipynb")
    names: dict[str, Any] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", []):
            for line in ast.parse(cell.source).body:
                if isinstance(line, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
                    exec(compile(ast.Module([line], []), path.name, "exec"), names)
    return names


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@says("00", "only half of its tumour was found", "gives the place *in that list*, here 1")
def _():
    truth, found = np.zeros((2, 8, 8, 5), dtype=bool)
    truth[2:6, 2:6, 1:4] = True
    found[2:6, 2:6, 1] = found[2:6, 2:4, 2] = found[2:5, 2:6, 3] = found[:, :, 4] = True
    scores = [dice(found[:, :, k], truth[:, :, k]) for k in range(5)]
    half = 2 * found[:, :, 2].sum() == truth[:, :, 2].sum()
    return half and page("00")["worst_slice"](truth, found) == 2 and np.argmin(scores[1:4]) == 1 and min(scores) == 0


@says("01", "A hundred times the volume is less than five times the diameter")
def _():
    return 4 < page("01")["diameter_mm"](100) / page("01")["diameter_mm"](1) < 5


@says("01", "runs without complaint, and answers for columns")
def _():
    bits = np.zeros((9, 6, 6), dtype=np.uint8)
    bits[2:7, 1:4, 1:4] = 1
    return [region_mask(bits, "whole").any(axis=axes).nonzero()[0].max() for axes in ((1, 2), (0, 1))] == [6, 3]


@says("01", "it returns the *largest* threshold, whatever its score")
def _():
    z = np.arange(6.0)
    pairs = [(t, dice(z > t, z > 2.5)) for t in (0.5, 1.5, 2.5, 3.5)]
    return max(pairs)[0] == 3.5 and page("01")["best_threshold"](z, z > 2.5, [0.5, 1.5, 2.5, 3.5]) == (2.5, 1)


@says("02", "half a byte by more than a third of one", "(Six. Why don't five suffice?)")
def _():
    error = {bits: 10 / (2**bits - 2) / 2 for bits in (4, 5, 6)}
    return error[4] > 1 / 3 and error[5] > 0.1 > error[6]


@says("02", "Both signs are minus", "The robust scores move less than half as far")
def _():
    brain = np.random.default_rng(0).normal(800, 100, 100_000).astype(np.float32)
    ill = brain.copy()
    ill[:10_000] += 400
    plain, robust = (
        function(ill)[10_000:].mean() - function(brain)[10_000:].mean()
        for function in (lambda image: (image - image.mean()) / image.std(), page("02")["robust_scores"])
    )
    return plain / 2 < robust < 0


@says("02", "all three of them are 0, and the scores are divided by zero")
def _():
    image = np.zeros((20, 20, 20), dtype=np.float32)
    image[5:15, 5:15, 5:15] = 800
    return not np.percentile(image, (25, 50, 75)).any()


@says("02", "in a batch of this size there is nothing left at all")
def _():
    x, chosen = torch.ones(64, 3, 8, 8), torch.randint(3, (64,), generator=seeded(1))
    x[:, chosen] = 0
    return not x.any()


@says("03", "With four channels in two groups both ways give the same", "try it with a shuffle that doesn't, as here")
def _():
    def own_inverse(channels: int, groups: int) -> bool:
        order = nn.ChannelShuffle(groups)(torch.arange(channels).view(1, -1, 1, 1)).flatten()
        return torch.equal(order[order], torch.arange(channels))

    return own_inverse(4, MSCB(2, 2).groups) and MSCB(2, 2).groups == 2 and not own_inverse(32, MSCB(16, 16).groups)


@says("04", "Whoever forgets the second matrix gets the very same wrong number")
def _():
    return count(CAB(512)) / 2 == 2 * count(CAB(256)) and count(CAB(512)) == 4 * count(CAB(256))


@says("04", "the larger window never wins", "the larger window never loses", "it is more than twice as clear")
def _():
    widths, clarity = range(1, 50), page("04")["clarity"]
    without_noise = all(min(3, w) ** 2 / 9 >= min(7, w) ** 2 / 49 for w in widths)
    without_mean = all(min(3, w) ** 2 <= min(7, w) ** 2 for w in widths)
    return without_noise and without_mean and clarity(7, 7) > 2 * clarity(3, 7)


@says("04", "Why do the two orders agree now?")
def _():
    usual, ours, x = MSCAM(16).eval(), page("04")["PlacesFirst"](16).eval(), torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        for weight in (usual.sab.conv.weight, *usual.cab.parameters()):
            weight.zero_()
        ours.load_state_dict(usual.state_dict())
        return torch.allclose(usual(x), ours(x), atol=1e-5)


@says("04", "Here stage 2 is a copy with equal values, and it would be dropped")
def _():
    shared = SAB()
    sabs = [shared, shared, copy.deepcopy(shared)]
    state = nn.ModuleList([page("04")["Stage"](sab) for sab in sabs]).state_dict()
    new = [name for i, name in enumerate(state) if not any(state[name].equal(v) for v in [*state.values()][:i])]
    return len(new) == 1 and len(page("04")["without_aliases"](state)) == 2


@says("05", "In training mode it holds", "a large enough input can still shut the gate")
def _():
    g, x = 1e15 * torch.randn(2, 4, 8, 16, 16, generator=seeded(1))
    open_in = {False: [], True: []}  # in this order: in training mode BN gets used to such inputs
    for gate in (LGAG(8) for _ in range(10)):
        nn.init.constant_(gate.agree[1].bias, 100.0)
        for training, narrowest in open_in.items():
            narrowest.append(gate.train(training).opening(g, x).min().item())
    return min(open_in[True]) > 0.99 and min(open_in[False]) < 0.01


@says("05", "Look whether the scale and the shift get a gradient")
def _():
    bn = (gate := page("05")["prop_open"](LGAG(8))).agree[1]
    g, x = torch.randn(2, 2, 8, 8, 8, generator=seeded())
    (gate.opening(g, x) * torch.randn(2, 1, 8, 8, generator=seeded(1))).sum().backward()
    return bn.weight.grad.abs() > 0 and bn.bias.grad.abs() > 0


@says("05", "That saves just as many parameters")
def _():
    gate = LGAG(16)
    shifts = sum(part[1].bias.numel() for part in (gate.judge_decoder, gate.judge_skip, gate.agree))
    return shifts == count(gate) - count(page("05")["LeanLGAG"](16)) == 17


@says("05", "and compare in *evaluation* mode. They differ.")
def _():
    gate, lean = LGAG(16), page("05")["LeanLGAG"](16)
    for parameter in gate.parameters():
        nn.init.normal_(parameter, generator=seeded())
    for seed in range(100):
        gate(*torch.randn(2, 2, 16, 8, 8, generator=seeded(seed)))
    lean.load_state_dict(gate.state_dict(), strict=False)
    g, x = torch.randn(2, 2, 16, 8, 8, generator=seeded())
    before = torch.allclose(gate.eval()(g, x), lean.eval()(g, x), atol=1e-3)
    for part in ("judge_decoder", "judge_skip", "agree"):
        getattr(lean, part)[1].running_mean -= getattr(gate, part)[0].bias.data
    return not before and torch.allclose(gate(g, x), lean(g, x), atol=1e-3)


@says("05", "lies between one half and not quite three quarters")
def _():
    twice = torch.linspace(-50, 50, 999).sigmoid().sigmoid()
    return twice.min() >= 0.5 and 0.7 < twice.max() < 0.75


@says("05", "To give the convolution $C$ outputs and to forget BN, which still expects one. PyTorch says so at once")
def _():
    (gate := LGAG(16)).agree[0] = nn.Conv2d(8, 16, kernel_size=1)
    with pytest.raises(RuntimeError, match="16 elements"):
        gate(*torch.zeros(2, 2, 16, 8, 8))
    return True


@says(
    "06", "covers everything, but not equally often", "some pixels get no stamp at all", "every pixel gets four stamps"
)
def _():
    reached = {size: page("06")["stamps"](size, stride=3) for size in (2, 4, 5, 6)}
    uneven = all(reached[size].min() > 0 and len(reached[size].unique()) > 1 for size in (4, 5))
    return uneven and reached[2].min() == 0 and (reached[6] == 4).all()


@says("06", "Nearly four times fewer multiply-adds", "and the right number of parameters as well")
def _():
    names = page("06")
    late, early = (names["cost"](names[name](256, 160).eval(), 256, 7) for name in ("EUCB", "EarlyEUCB"))
    one_by_one, depthwise, norm = 256 * 160 + 160, 9 * 160, 2 * 160  # whatever their order
    return 3.5 < late[1] / early[1] < 4 and early[0] == one_by_one + depthwise + norm


@says("06", "each little block comes out mirrored along its diagonal")
def _():
    right = page("06")["as_pixel_shuffle"](nn.ConvTranspose2d(6, 3, kernel_size=2, stride=2))
    wrong, x = copy.deepcopy(right), torch.randn(1, 6, 5, 5)
    wrong[0].weight.data = right[0].weight.data.view(3, 2, 2, 6).transpose(1, 2).reshape(12, 6, 1, 1)
    blocks = [F.pixel_unshuffle(layers(x), 2).view(3, 2, 2, 5, 5) for layers in (right, wrong)]
    return torch.allclose(blocks[0].transpose(1, 2), blocks[1], atol=1e-5)


@says("07", "Not quite twice as many", "The count is a straight line over the expansion")
def _():
    sizes = [count(create_model(expansion=expansion).decoder) for expansion in (1, 2, 3, 4)]
    return len(set(np.diff(sizes))) == 1 and 1.8 < sizes[3] / sizes[1] < 2


@says("07", "halving the expansion saves more than leaving out a branch")
def _():
    units = page("07")["units_kept"]
    closed = all(units(b, e) == 4 + e * (4 + 2 * b) for b, e in itertools.product((1, 2, 3, 4), (1, 2, 3)))
    return closed and units(3, 1) < units(2, 2) < units(3, 2)


@says("07", '`create_model(variant="no-lgag")` does that')
def _():
    complete, without = (create_model(variant=variant).decoder for variant in ("complete", "no-lgag"))
    return count(complete) - count(without) == sum(count(LGAG(width)) for width in (32, 64, 160))


@says("08", "One false pixel would cost only one half")
def _():
    logits = torch.full((1, 1, 10, 10), -100.0)
    logits[..., 0, 0] = 100.0
    return abs(dice_loss(logits, torch.zeros_like(logits)) - 0.5) < 1e-6


@says("08", "only while all logits are 0", "Why is it another share?")
def _():
    target = (torch.arange(16) < 8).float().expand(2, 1, 16, 16)
    zero, one = ([torch.full((2, 1, 16, 16), logit)] * 4 for logit in (0.0, 1.0))
    shares = [page("08")["four_losses"](maps, target) / mutation_loss(maps, target) for maps in (zero, one)]
    return abs(shares[0] - 4 / 15) < 1e-4 and abs(shares[1] - 4 / 15) > 0.01


@says("08", "its loss doesn't depend on the network")
def _():
    target = torch.ones(1, 1, 8, 8)
    network = torch.randn(1, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(segmentation_loss(0 * network, target), network)
    return not gradient.any()


@says("08", "`einsum` doesn't multiply them with floats, and says so")
def _():
    with pytest.raises(RuntimeError, match="Float"):
        torch.einsum("sm,mb->sb", torch.tensor([[0, 1]]), torch.randn(2, 3))
    return True


@says("09", "the spread is tiny and nearly the same for every batch size")
def _():
    tables = [np.random.default_rng(0).normal(size=(20_000, size)) for size in (6, 16, 25)]
    return all(0.003 < table.mean(axis=0).std() < 0.012 for table in tables)  # of 1/sqrt(20,000), for any size


@says("09", "so that only the last batch counts", "which gives a gradient three times as long")
def _():
    toy = nn.Linear(4, 1)
    batches = [tuple(torch.randn(4, width, generator=seeded(seed)) for width in (4, 1)) for seed in range(3)]
    right = page("09")["accumulated_gradient"](toy, batches, F.mse_loss)
    toy.zero_grad()
    for x, y in batches:
        F.mse_loss(toy(x), y).backward()
    return torch.allclose(torch.cat([p.grad.flatten() for p in toy.parameters()]), 3 * right, atol=1e-5)


@says("10", "calls a smoothed curve stable")
def _():
    losses, names = [6, 3, 4, 2, 3], page("10")
    return names["instability"](losses) == 0.4 and names["instability"](names["smoothed"](losses, 0.5)) == 0


@says(
    "10",
    "The right curve never falls below 0.8, the wrong one nearly reaches 0",
    "With one half, as here, nobody sees it",
)
def _():
    smoothed, values = page("10")["smoothed"], [1.0, 0.0, 0.0, 1.0]
    return min(smoothed(values, 0.9)) > 0.8 and 0 < min(smoothed(values, 1 - 0.9)) < 0.02


@says("10", "it would take the network of 30", "`nan` never comes")
def _():
    history = pd.DataFrame({"updates": [10, 20, 30], "dice_patient": [0.1, 0.2, 0.3]})

    def nearest(updates: int) -> int:
        return history["updates"][(history["updates"] - updates).abs().idxmin()]

    return nearest(28) == 30 and nearest(5) == 10 and page("10")["dice_at_updates"](history, 28) == 0.2


@says("11", "(Let one of them be perfect on one patient, and miss the other altogether.)")
def _():
    one, other = np.array([1, 0]), np.array([0.6, 0.5])
    return one.mean() < other.mean() and (one / (2 - one)).mean() > (other / (2 - other)).mean()


@says("11", "and the mean rises to 1")
def _():
    truth = np.zeros((2, 8, 8), dtype=bool)
    truth[0, 2:5, 2:5] = True
    paid, honest = (
        np.mean([dice(p, t, both_empty=0.0, false_positive=1.0) for p, t in zip(masks, truth, strict=True)])
        for masks in ([truth[0], page("11")["flatterer"](truth[1])], truth)
    )
    return paid == 1 and honest == 0.5


@says("11", "The honest number is right on average", "The test score of the last epoch would be as honest")
def _():
    validation, test = np.random.default_rng(0).normal(0.8, 0.05, (2, 1000, 20))
    honest = np.mean([page("11")["to_report"](*scores) for scores in zip(validation, test, strict=True)])
    lucky = (validation.max(axis=1).mean(), test.max(axis=1).mean())
    return abs(honest - 0.8) < 0.005 and abs(test[:, -1].mean() - 0.8) < 0.005 and min(lucky) > 0.88


@says("12", "On this page the first two numbers would change places", "gives the two the same score")
def _():
    cube, half = np.arange(10) >= 0, np.arange(10) >= 5
    sensitivity = page("12")["sensitivity"]
    precision = [(found & truth).sum() / found.sum() for found, truth in ((cube, half), (half, cube))]
    return precision == [sensitivity(half, cube), sensitivity(cube, half)] and dice(cube, half) == dice(half, cube)


@says("12", "At the stray voxel it is 0", "how deep the tumour is")
def _():
    cube = np.zeros((50, 50, 50), dtype=bool)
    cube[5:15, 20:30, 20:30] = True
    stray = cube.copy()
    stray[44, 25, 25] = True
    inside = page("12")["ndimage"].distance_transform_edt(cube)
    return inside[44, 25, 25] == 0 and inside[stray].max() == 5 and page("12")["worst_distance"](stray, cube) == 30


@pytest.mark.parametrize(
    ("number", "phrases", "so"), CLAIMS, ids=[f"{n}-{' '.join(phrases[0].split()[:8])}" for n, phrases, _ in CLAIMS]
)
def test_what_a_page_says_of_an_answer_is_so(number, phrases, so):
    assert [phrase for phrase in phrases if phrase not in prose(number)] == []
    assert so()
