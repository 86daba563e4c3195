"""What the tracer writes down, against numbers worked out by hand."""

import copy
import gc
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from emcad_lib.files import CourseError
from emcad_lib.model.pvt_emcad import create_model
from emcad_lib.model.trace import ADDED_UP, trace


@pytest.fixture(scope="module")
def b0():
    """PVT-EMCAD-B0 on one slice of 224 px."""
    return trace(create_model("pvt_v2_b0"), torch.zeros(1, 3, 224, 224))


class Stages(nn.Sequential):
    """An encoder of two stages, at strides 4 and 8."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, kernel_size=4, stride=4)
        self.second = nn.Sequential(nn.Conv2d(4, 8, kernel_size=2, stride=2, bias=False), nn.ReLU())
        self.feature_info = SimpleNamespace(module_name=lambda: ["first", "second"])

    def forward(self, x):
        first = self.first(x)
        return [first, self.second(first)]


class MoreStages(Stages):
    """The same, with something between the stages and behind the last one."""

    def __init__(self):
        super().__init__()
        first, second = self.first, self.second
        del self.first, self.second
        self.first, self.between, self.second = first, nn.Conv2d(4, 4, kernel_size=1, bias=False), second
        self.behind = nn.Conv2d(8, 8, kernel_size=1, bias=False)

    def forward(self, x):
        first = self.first(x)
        return [first, self.behind(self.second(self.between(first)))]


class Gate(nn.Module):
    def forward(self, x):
        return torch.sigmoid(x) * x


class Tiny(nn.Module):
    """A network small enough to count by hand."""

    def __init__(self):
        super().__init__()
        self.encoder = Stages()
        self.decoder = nn.Sequential()
        self.decoder.gate = Gate()
        self.heads = nn.ModuleList([nn.Conv2d(8, 1, kernel_size=1)])

    def forward(self, x):
        return self.heads[0](self.decoder(self.encoder(x)[1]))


def test_the_parts_stand_in_the_order_in_which_they_work_under_their_names_in_the_code(b0):
    stages = [f"encoder.stages_{i}" for i in range(4)]
    climb = [f"decoder.{block}{stage}" for stage in (3, 2, 1) for block in ("eucb", "lgag", "mscam")]
    heads = [f"heads.{i}" for i in range(4)]
    assert list(b0.index) == [*stages, "decoder.mscam4", "decoder.sab", *climb, *heads, "sum"]
    assert set(b0.index[:-1]) <= {name for name, _ in create_model().named_modules()}


@pytest.mark.parametrize(
    ("encoder", "decoder", "whole", "billions"),
    [("pvt_v2_b0", 506_507, 3_916_795, 0.102), ("pvt_v2_b2", 1_913_515, 26_764_411, 0.366)],
)
def test_the_sums_are_those_of_the_published_network(encoder, decoder, whole, billions):
    parts = trace(create_model(encoder, in_channels=1), torch.zeros(1, 1, 224, 224))
    blocks = parts.filter(like="decoder.", axis=0)
    assert (blocks["parameters"].sum(), parts.loc["sum", "parameters"]) == (decoder, whole)
    assert round(blocks["multiply-adds"].sum() / 1e9, 3) == billions
    assert parts.loc["lift", "parameters"] == 12


def test_a_lift_is_only_there_for_one_channel(b0):
    assert "lift" not in b0.index
    assert b0.loc["sum", "parameters"] == 3_916_795 - 12


def test_shapes_and_strides_are_those_of_the_output(b0):
    shapes = ["32 x 56 x 56", "64 x 28 x 28", "160 x 14 x 14", "256 x 7 x 7"]
    for stage, shape in enumerate(shapes, start=1):
        for part in (f"encoder.stages_{stage - 1}", f"decoder.mscam{stage}"):
            assert b0.loc[part, ["stage", "stride", "shape"]].tolist() == [stage, 2 ** (stage + 1), shape]
    assert b0.loc["decoder.eucb1", "shape"] == shapes[0]
    assert b0.loc["heads.3", "shape"] == "1 x 56 x 56"  # before it is stretched to the size of the slice


def test_multiply_adds_are_those_of_the_formulas(b0):
    places = 28 * 28
    mscb = places * (4 * 64**2 + 2 * 64 * (1 + 9 + 25))
    cab, sab = 2 * (2 * 64 * 4), 98 * places
    assert b0.loc["decoder.mscam2", "multiply-adds"] == mscb + cab + sab
    assert b0.loc["decoder.eucb2", "multiply-adds"] == places * (9 * 160 + 160 * 64)
    assert b0.loc["decoder.lgag2", "multiply-adds"] == places * (2 * 9 * 64 + 32)
    assert b0.loc["heads.2", "multiply-adds"] == places * 64


def test_a_block_keeps_many_times_its_output(b0):
    """MSCAM: three inputs, 3 x 2 in widening, 3 branches x 2 x 2, 2 after the shuffle, 1 at the end; and small ones."""
    places, one = 56 * 56, 56 * 56 * 32 * 4
    kept = b0.loc["decoder.mscam1", "kept MB"] * 2**20
    sab = 4 * places * 3 + 8 * places  # mean and maximum side by side, the sigmoid; where the maximum was (8 bytes)
    assert 24 * one < kept <= 24 * one + sab + 10_000
    assert b0.loc["decoder.mscam1", "output MB"] * 2**20 == one


def test_each_piece_of_memory_is_counted_once_with_the_part_that_first_asked_for_it():
    parts = trace(Tiny(), torch.zeros(1, 3, 64, 64))
    slice_, x1, x2 = 3 * 64 * 64 * 4, 4 * 16 * 16 * 4, 8 * 8 * 8 * 4  # bytes
    assert (parts["kept MB"] * 2**20).round().astype(int).to_dict() == {
        "encoder.first": slice_,  # the convolution's input; not its weights
        "encoder.second": x1 + x2,  # the convolution's input and what ReLU gives
        "decoder.gate": x2,  # the sigmoid; its input is kept already
        "heads.0": x2,
        "sum": slice_ + x1 + 3 * x2,
    }
    assert parts["parameters"].tolist() == [196, 128, 0, 9, 333]
    assert parts["multiply-adds"].tolist() == [192 * 256, 128 * 64, 0, 8 * 64, 192 * 256 + 128 * 64 + 8 * 64]


def test_a_part_that_is_lent_has_its_parameters_once_and_its_work_where_it_works(b0):
    assert b0.loc["decoder.sab", "parameters"] == 98
    assert b0.loc["decoder.sab", ["multiply-adds", "output MB", "kept MB"]].tolist() == [0, 0, 0]
    assert b0.loc["decoder.mscam4", "parameters"] == 8192 + 284_672  # CAB and MSCB


def test_the_last_row_adds_the_others_up(b0):
    assert b0.loc["sum", ADDED_UP].tolist() == pytest.approx(b0.drop("sum")[ADDED_UP].sum().tolist())


def test_what_lies_before_a_stage_of_the_encoder_is_counted_with_it():
    model = create_model("resnet18")
    parts = trace(model, torch.zeros(1, 3, 64, 64))
    count = {name: sum(p.numel() for p in child.parameters()) for name, child in model.encoder.named_children()}
    assert parts.loc["encoder.layer1", "parameters"] == count["conv1"] + count["bn1"] + count["layer1"]
    assert parts.loc["encoder.layer1", "shape"] == "64 x 16 x 16"
    assert parts.loc["sum", "parameters"] == sum(p.numel() for p in model.parameters())


def test_what_lies_between_two_stages_is_counted_with_the_second_and_what_lies_behind_the_last_with_the_last():
    model = Tiny()
    model.encoder = MoreStages()
    parts = trace(model, torch.zeros(1, 3, 64, 64))
    assert parts.loc["encoder.first", ["parameters", "multiply-adds"]].tolist() == [196, 192 * 256]
    second = [16 + 128 + 64, 16 * 256 + 128 * 64 + 64 * 64]
    assert parts.loc["encoder.second", ["parameters", "multiply-adds"]].tolist() == second


def test_two_slices_are_twice_the_work_and_the_same_parameters():
    model = create_model()
    one, two = (trace(model, torch.zeros(batch, 3, 64, 64)).loc["sum"] for batch in (1, 2))
    assert two["multiply-adds"] == 2 * one["multiply-adds"]
    assert two["output MB"] == 2 * one["output MB"]
    assert two["kept MB"] == pytest.approx(2 * one["kept MB"], rel=0.01)  # but for BN's means and spreads
    assert two["parameters"] == one["parameters"]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training):
    model = create_model(drop_path=0.2).train(training)
    model(torch.randn(2, 3, 64, 64))[3].mean().backward()
    model.decoder.eval()
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()

    trace(model, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))

    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    for before, parameter in zip(gradients, model.parameters(), strict=True):
        assert parameter.grad is None if before is None else torch.equal(parameter.grad, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_of_a_pass_stays_in_memory():
    """A graph that refers to itself is never set free, and a widget that traces uses up the memory, move by move."""

    def tensors():
        gc.collect()
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    trace(create_model("pvt_v2_b0"), torch.zeros(1, 3, 64, 64))  # what the first pass sets up for all
    before = tensors()

    trace(create_model("pvt_v2_b0"), torch.zeros(1, 3, 64, 64))

    assert tensors() == before


def test_the_model_is_watched_in_training_whatever_its_mode_and_the_callers():
    model = create_model()
    x = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        one = trace(model.eval(), x)
    assert one.equals(trace(model.train(), x))


def test_one_value_per_channel_is_refused_with_what_to_do():
    with pytest.raises(CourseError, match="32 x 32 pixels leaves one value per channel.*Give two slices, or larger"):
        trace(create_model(), torch.zeros(1, 3, 32, 32))
    trace(create_model(), torch.zeros(2, 3, 32, 32))


def test_another_model_is_refused_with_the_name_of_what_it_lacks():
    with pytest.raises(CourseError, match="this Conv2d has no such encoder. create_model makes one"):
        trace(nn.Conv2d(3, 1, 1), torch.zeros(1, 3, 64, 64))
    model = create_model()
    del model.heads
    with pytest.raises(CourseError, match="this PVTEMCAD has no such heads"):
        trace(model, torch.zeros(1, 3, 64, 64))


def test_an_encoder_whose_stages_cannot_be_told_apart_is_refused():
    model = Tiny()
    model.encoder.feature_info.module_name = lambda: ["first", "elsewhere"]
    with pytest.raises(CourseError, match="'elsewhere' can't be told apart"):
        trace(model, torch.zeros(1, 3, 64, 64))


def test_a_slice_of_the_wrong_size_is_refused_by_the_model():
    with pytest.raises(ValueError, match="multiples of 32"):
        trace(create_model(), torch.zeros(1, 3, 240, 240))
