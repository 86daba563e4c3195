"""Each block against an independent computation of a few lines, from the same weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emcad_lib.model.blocks import CAB, EUCB, LGAG, MSCAM, MSCB, MSDC, SAB, channel_shuffle


def randomise(block: nn.Module) -> dict[str, torch.Tensor]:
    """Random weights and statistics, so that nothing hides behind an initial value; in evaluation mode."""
    torch.manual_seed(0)
    for tensor in block.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) - 0.3)
    for name, tensor in block.state_dict().items():
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return block.eval().state_dict()


def bn(x: torch.Tensor, w: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """BatchNorm in evaluation mode, by its formula."""
    mean, var, scale, shift = (
        w[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift


def relu6(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(0, 6)


SHAPES = [(2, 8, 12, 12), (1, 16, 7, 9), (3, 4, 1, 5)]


def test_channel_shuffle_takes_one_channel_from_each_pile_in_turn():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_sizes", [(1, 3, 5), (3, 5, 7), (3,)])
def test_msdc_adds_its_activated_depthwise_branches(shape, kernel_sizes):
    block = MSDC(shape[1], kernel_sizes)
    w, x = randomise(block), torch.randn(shape)
    expected = torch.zeros(shape)
    for i, size in enumerate(kernel_sizes):
        filtered = F.conv2d(x, w[f"branches.{i}.0.weight"], padding=size // 2, groups=shape[1])
        expected += relu6(bn(filtered, w, f"branches.{i}.1"))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("out_channels", "expansion"), [(None, 2), (12, 3)])
def test_mscb_widens_convolves_shuffles_narrows_and_adds_the_shortcut(shape, out_channels, expansion):
    channels = shape[1]
    out_channels = out_channels or channels
    block = MSCB(channels, out_channels, expansion=expansion)
    w, x = randomise(block), torch.randn(shape)

    wide = relu6(bn(torch.einsum("oi,bihw->bohw", w["widen.0.weight"][:, :, 0, 0], x), w, "widen.1"))
    scales = block.msdc(wide)
    groups = math.gcd(channels * expansion, out_channels)
    per_pile = scales.shape[1] // groups
    order = [pile * per_pile + card for card in range(per_pile) for pile in range(groups)]
    expected = bn(torch.einsum("oi,bihw->bohw", w["narrow.0.weight"][:, :, 0, 0], scales[:, order]), w, "narrow.1")
    if out_channels == channels:
        expected = expected + x
        assert "shortcut.weight" not in w
    else:
        expected = expected + torch.einsum("oi,bihw->bohw", w["shortcut.weight"][:, :, 0, 0], x)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("channels", [64, 32, 8])
def test_cab_weighs_channels_by_average_and_maximum_through_one_bottleneck(channels):
    block = CAB(channels)
    w, x = randomise(block), torch.randn(2, channels, 6, 5)
    squeeze, expand = w["squeeze.weight"][:, :, 0, 0], w["expand.weight"][:, :, 0, 0]
    opinions = [
        F.relu(pooled @ squeeze.T) @ expand.T for pooled in (x.mean(dim=(2, 3)), x.flatten(2).max(dim=2).values)
    ]
    torch.testing.assert_close(block(x)[:, :, 0, 0], torch.sigmoid(opinions[0] + opinions[1]))
    assert squeeze.shape[0] == max(channels // 16, 1)


def test_sab_weighs_pixels_by_the_mean_and_maximum_over_channels():
    block = SAB()
    w, x = randomise(block), torch.randn(2, 5, 9, 8)
    summary = torch.stack([x.sum(1) / 5, x.max(1).values], dim=1)
    torch.testing.assert_close(block(x), torch.sigmoid(F.conv2d(summary, w["conv.weight"], padding=3)))
    assert sum(p.numel() for p in block.parameters()) == 2 * 7 * 7


def test_mscam_is_cab_then_sab_then_mscb_and_a_lent_sab_is_not_its_own():
    lent = SAB()
    own, borrowing = MSCAM(16), MSCAM(16, shared_sab=lent)
    randomise(own)
    lent.load_state_dict(own.sab.state_dict())
    borrowing.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith("sab.")})
    x = torch.randn(2, 16, 8, 8)

    seen = own.cab(x) * x
    expected = own.mscb(own.sab(seen) * seen)

    torch.testing.assert_close(own(x), expected)
    torch.testing.assert_close(borrowing.eval()(x), expected)
    assert not any(name.startswith("sab") for name in borrowing.state_dict())


@pytest.mark.parametrize("channels", [8, 32])
def test_lgag_multiplies_the_skip_by_a_gate_made_from_both(channels):
    block = LGAG(channels)
    w = randomise(block)
    g, x = torch.randn(2, 2, channels, 10, 10)
    half = channels // 2
    judged = [
        bn(F.conv2d(t, w[f"{name}.0.weight"], w[f"{name}.0.bias"], padding=1, groups=half), w, f"{name}.1")
        for name, t in (("judge_decoder", g), ("judge_skip", x))
    ]
    summed = torch.einsum("oi,bihw->bohw", w["agree.0.weight"][:, :, 0, 0], F.relu(judged[0] + judged[1]))
    gate = torch.sigmoid(bn(summed + w["agree.0.bias"], w, "agree.1"))
    torch.testing.assert_close(block(g=g, x=x), x * gate)
    assert w["judge_skip.0.weight"].shape == (half, 2, 3, 3)


def test_eucb_repeats_pixels_smooths_each_channel_and_mixes_them():
    block = EUCB(6, 4)
    w, x = randomise(block), torch.randn(2, 6, 5, 7)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    smoothed = bn(F.conv2d(doubled, w["depthwise.0.weight"], padding=1, groups=6), w, "depthwise.1").clamp(min=0)
    expected = torch.einsum("oi,bihw->bohw", w["pointwise.weight"][:, :, 0, 0], smoothed)
    torch.testing.assert_close(block(x), expected + w["pointwise.bias"][:, None, None])


def test_the_published_shuffle_of_eucb_changes_nothing():
    x = torch.randn(1, 12, 3, 3)
    assert torch.equal(channel_shuffle(x, 12), x)


@pytest.mark.parametrize("name", ["relu", "relu6", "gelu"])
def test_the_activation_reaches_every_branch_and_the_widening(name):
    block = MSCB(4, 4, activation=name)
    kinds = {type(m).__name__.lower() for m in block.modules()} & {"relu", "relu6", "gelu"}
    assert kinds == {name}
    assert sum(type(m).__name__.lower() == name for m in block.modules()) == 4
