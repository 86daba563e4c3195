"""A decoder with one block taken away: that block, and nothing else."""

import pytest
import torch

from emcad_lib.files import CourseError
from emcad_lib.model.ablate import COMPLETE, VARIANTS
from emcad_lib.model.blocks import CAB, LGAG, SAB
from emcad_lib.model.pvt_emcad import create_model
from emcad_lib.model.weights import load_weights, save_weights


def random_model(variant=COMPLETE):
    """A network whose weights are large enough for each block to make a difference."""
    torch.manual_seed(0)
    model = create_model(variant=variant).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.normal_(std=0.3)
    return model


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def parameters(model):
    return sum(weight.numel() for weight in model.decoder.parameters())


@pytest.mark.parametrize(("variant", "kind", "has"), [("no-cab", CAB, 4), ("no-sab", SAB, 1), ("no-lgag", LGAG, 3)])
def test_a_variant_lacks_its_block_and_all_that_the_block_costs(variant, kind, has):
    complete, without = create_model(), create_model(variant=variant)

    assert (count(complete, kind), count(without, kind)) == (has, 0)
    cost = sum(w.numel() for m in complete.modules() if isinstance(m, kind) for w in m.parameters())
    assert parameters(complete) - parameters(without) == cost > 0


@pytest.mark.parametrize(
    ("variant", "hooked", "opened"),
    [
        ("no-cab", CAB, lambda _module, inputs, _output: torch.ones(1)),
        ("no-sab", SAB, lambda _module, inputs, _output: torch.ones(1)),
        ("no-lgag", LGAG, lambda _module, _inputs, kwargs, _output: kwargs["x"]),
    ],
)
def test_without_a_block_the_network_is_the_complete_one_with_that_block_wide_open(variant, hooked, opened):
    complete = random_model()
    without = create_model(variant=variant).eval()
    without.load_state_dict({key: complete.state_dict()[key] for key in without.state_dict()})
    for module in complete.modules():
        if isinstance(module, hooked):
            module.register_forward_hook(opened, with_kwargs=hooked is LGAG)
    x = torch.randn(2, 3, 64, 64)

    with torch.no_grad():
        for ours, theirs in zip(without(x), complete(x), strict=True):
            torch.testing.assert_close(ours, theirs)
        closed = random_model()(x)[-1]
    assert (without(x)[-1] - closed).abs().max() > 1e-3 * closed.abs().max()


def test_one_kernel_is_3x3_whatever_kernels_were_asked_for():
    model = create_model(variant="one-kernel", kernel_sizes=(1, 3, 5))

    sizes = [branch[0].kernel_size for branch in model.decoder.mscam1.mscb.msdc.branches]
    assert sizes == [(3, 3)]


def test_concatenation_can_add_and_then_it_is_the_complete_network():
    complete, side_by_side = random_model(), create_model(variant="concatenation").eval()
    state = complete.state_dict()
    for stage, width in ((3, 160), (2, 64), (1, 32)):
        both = torch.cat([torch.eye(width)] * 2, dim=1)  # (C, 2C): the sum of both halves
        state |= {f"decoder.join{stage}.weight": both[..., None, None], f"decoder.join{stage}.bias": torch.zeros(width)}
    side_by_side.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)

    with torch.no_grad():
        for ours, theirs in zip(side_by_side(x), complete(x), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_joins_start_like_every_other_convolution_of_the_decoder():
    join = create_model(variant="concatenation").decoder.join3

    assert join.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not join.bias.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_and_is_built_again_from_its_file(variant, tmp_path):
    model = random_model(variant)
    sum(p.square().mean() for p in model(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    x = torch.randn(1, 3, 64, 64)

    save_weights(model, tmp_path / "weights.safetensors")
    again = load_weights(tmp_path / "weights.safetensors")

    assert again.config.variant == variant
    with torch.no_grad():
        torch.testing.assert_close(again(x)[-1], model(x)[-1])


def test_an_unknown_variant_is_refused_with_those_that_there_are():
    with pytest.raises(CourseError, match="no variant 'no-encoder'.*no-cab, no-sab, no-lgag"):
        create_model(variant="no-encoder")
