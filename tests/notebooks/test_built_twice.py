"""Each block is built twice, in a lesson and in the library. Are both the same, and would anybody notice if not?"""

from __future__ import annotations

import csv
import inspect
import re
from pathlib import Path

import pytest
from block_table import TABLE, Block, changed, definitions, difference
from torch import nn

from emcad_lib.model import blocks, decoder, pvt_emcad

LAYOUT = Path(__file__).parents[1] / "model" / "official_layout.csv"


@pytest.mark.parametrize("block", TABLE, ids=str)
def test_the_lesson_and_the_library_build_the_same_block(block):
    found = difference(block, definitions(block.lesson)[block.name], block.library)
    assert not found, f"{block.name} of the library isn't the one that {block.notebook} builds: {found}."


def test_every_block_of_the_library_has_a_row():
    library = {
        name
        for module in (blocks, decoder, pvt_emcad)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, nn.Module) and kind.__module__ == module.__name__
    } - {"Network"}  # what PVTEMCAD has in common with the networks of others: no block
    assert library == {block.name for block in TABLE}, "a block without a row in tests/notebooks/block_table.py"
    for block in TABLE:
        assert block.library.__name__ == block.name


@pytest.mark.parametrize("block", TABLE, ids=str)
def test_the_published_layout_has_the_tensors_of_the_block(block):
    """Every tensor has its place in the published layout, in every stage that has the block."""
    with LAYOUT.open() as file:
        keys = [row["key"] for row in csv.DictReader(file) if row["encoder"] == "pvt_v2_b0"]
    for prefix in block.published:
        stages = "(4|3|2|1)" if prefix.startswith(("decoder.mscb", "decoder.cab", "out_head")) else "(3|2|1)"
        pattern = re.compile(re.escape(prefix).replace(re.escape("{stage}"), stages))
        found = [match for key in keys if (match := pattern.match(key))]
        assert found, prefix
        if "{stage}" in prefix:
            assert {match[1] for match in found} == set(re.findall(r"\d", stages))


# A slip of the pen in the library: block, what stands there, what would stand there, which of its occurrences.
CHANGES = [
    ("MSDC", "(1, 3, 5)", "(3, 5, 7)", 0),
    ("MSDC", "bias=False", "bias=True", 0),
    ("MSDC", "nn.BatchNorm2d(channels)", "nn.BatchNorm2d(channels, momentum=0.2)", 0),
    ("MSDC", '= "relu6"', '= "relu"', 0),
    ("MSDC", "groups=channels", "groups=channels, padding_mode='reflect'", 0),
    ("MSDC", "padding=size // 2", "padding=0", 0),  # other sizes of output for each branch
    ("MSDC", "sum(scales[1:], scales[0])", "sum(scales[1:], scales[0]) / 3", 0),
    ("MSDC", "branch(x) for branch", "branch(x.detach()) for branch", 0),
    ("MSCB", "(1, 3, 5)", "(3, 5, 7)", 0),
    ("MSCB", "expansion: int = 2", "expansion: int = 3", 0),
    ("MSCB", "ACTIVATIONS[activation]()", "nn.ReLU()", 0),
    ("MSCB", "self.msdc = MSDC(wide, kernel_sizes, activation)", "self.msdc = MSDC(wide, kernel_sizes)", 0),
    ("MSCB", "math.gcd(wide, out_channels)", "1", 0),
    ("MSCB", " + self.shortcut(x)", "", 0),
    ("MSCB", "nn.BatchNorm2d(out_channels),", "nn.BatchNorm2d(out_channels), nn.ReLU6(),", 0),
    ("CAB", "reduction: int = 16", "reduction: int = 8", 0),
    ("CAB", "max(channels // reduction, 1)", "math.ceil(channels / reduction)", 0),
    ("CAB", "channels // reduction, 1)", "channels // reduction, 2)", 0),
    ("CAB", "F.relu(", "F.relu6(", 0),
    ("CAB", "F.adaptive_max_pool2d", "F.adaptive_avg_pool2d", 0),
    ("CAB", "torch.sigmoid(average + maximum)", "torch.sigmoid(average.detach() + maximum)", 0),
    ("CAB", "bias=False", "bias=True", 1),
    ("SAB", "kernel_size: int = 7", "kernel_size: int = 5", 0),
    ("SAB", "[mean, maximum]", "[maximum, mean]", 0),
    ("SAB", "padding=kernel_size // 2", "padding=0", 0),
    ("SAB", "x.amax(", "x.mean(", 0),
    ("SAB", "torch.sigmoid(", "torch.tanh(", 0),
    ("MSCAM", "(1, 3, 5)", "(1, 3)", 0),
    ("MSCAM", "kernel_sizes, expansion, activation)", "(1, 3, 5), expansion, activation)", 0),
    ("MSCAM", "kernel_sizes, expansion, activation)", "kernel_sizes, expansion)", 0),
    ("MSCAM", "(shared_sab,)", "()", 0),
    ("MSCAM", "if shared_sab is None:\n", "if True:\n", 0),
    ("MSCAM", "x = self.cab(x) * x", "x = x + self.cab(x) * x", 0),
    ("MSCAM", "x = sab(x) * x", "x = sab(x)  + x", 0),
    ("LGAG", "F.relu(", "F.relu6(", 0),
    ("LGAG", "self.judge_decoder(g) + self.judge_skip(x)", "self.judge_decoder(x) + self.judge_skip(g)", 0),
    ("LGAG", "padding=1, groups=half)", "padding=1, groups=half, bias=False)", 1),
    ("LGAG", "self.opening(g, x) * x", "self.opening(g, x) * x + x", 0),
    ("LGAG", "nn.BatchNorm2d(1)", "nn.Identity()", 0),
    ("EUCB", "nn.ReLU()", "nn.ReLU6()", 0),
    ("EUCB", '"nearest"', '"bilinear"', 0),
    ("EUCB", "nn.BatchNorm2d(in_channels)", "nn.BatchNorm2d(in_channels, momentum=0.01)", 0),
    ("EUCB", "nn.BatchNorm2d(in_channels)", "nn.BatchNorm2d(in_channels, eps=1e-3)", 0),
    ("EUCB", "out_channels, kernel_size=1)", "out_channels, kernel_size=1, bias=False)", 0),
    ("EMCAD", "(1, 3, 5)", "(3, 5, 7)", 0),
    ("EMCAD", "u3 + self.lgag3(g=u3, x=x3)", "self.lgag3(g=u3, x=x3)", 0),
    ("EMCAD", "self.lgag2(g=u2, x=x2)", "self.lgag2(g=x2, x=u2)", 0),
    ("EMCAD", "self.lgag1(g=u1, x=x1)", "x1", 0),
    ("EMCAD", ", shared_sab=self.sab", "", 0),
    ("EMCAD", "return [d4, d3, d2, d1]", "return [d4, d3, d2, u1]", 0),
    ("EMCAD", "return [d4, d3, d2, d1]", "return [d4, d3, d2, d1, d1]", 0),
]


@pytest.mark.parametrize(
    ("name", "old", "new", "occurrence"),
    CHANGES,
    ids=[f"{name}-{number}" for number, (name, *_) in enumerate(CHANGES)],
)
def test_a_change_of_the_library_is_noticed(name, old, new, occurrence):
    (block,) = [block for block in TABLE if block.name == name]
    found = difference(block, definitions(block.lesson)[name], changed(block.library, old, new, occurrence))
    assert found
    assert "can't be built" not in found  # a change that breaks the block says nothing about the comparison


def test_a_change_of_the_whole_network_is_noticed(monkeypatch):
    """The network is made by a factory, so these slips go into the class that the factory uses."""
    (block,) = [block for block in TABLE if block.name == "PVTEMCAD"]
    for old, new in (
        ("reversed(channels)", "channels"),
        ('mode="bilinear", align_corners=False', 'mode="nearest"'),
        ("align_corners=False", "align_corners=True"),
        ("kernel_size=1)", "kernel_size=1, bias=False)"),
        ("config.expansion, config.activation", 'config.expansion, "relu6"'),
    ):
        slip = changed(pvt_emcad.PVTEMCAD, old, new)
        with monkeypatch.context() as patched:
            patched.setattr(pvt_emcad, "PVTEMCAD", slip)
            found = difference(block, definitions("07")["PVTEMCAD"], slip)
        assert found, old
        assert "can't be built" not in found, old


def test_a_block_is_the_same_as_itself():
    """The comparison has no quirk of its own that finds differences everywhere."""
    for block in TABLE[:-1]:
        assert not difference(block, block.library, block.library)
        assert isinstance(block, Block)
