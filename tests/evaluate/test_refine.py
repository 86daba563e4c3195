"""What a network gains on a patient at hand: adapted batch normalisation, and no crumbs."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from emcad_lib import create_model
from emcad_lib.evaluate.refine import adapted, without_crumbs
from emcad_lib.files import CourseError


@pytest.fixture
def network():
    layer = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))
    nn.init.ones_(layer[0].weight)
    return layer


@pytest.fixture
def bright():
    """Slices as another scanner gives them: mean 10 and standard deviation 3, where the training had 0 and 1."""
    return 10 + 3 * torch.randn(64, 1, 16, 16)


def test_a_share_of_1_takes_the_images_own_mean_and_variance(network, bright):
    model = adapted(network, bright.split(16), share=1)

    out = model(bright)
    assert out.mean().item() == pytest.approx(0, abs=1e-4)
    assert out.std().item() == pytest.approx(1, abs=1e-2)


def test_a_share_between_lies_between(network, bright):
    model = adapted(network, bright.split(16), share=0.25)

    torch.testing.assert_close(model[1].running_mean, torch.full((2,), bright.mean().item() / 4), rtol=1e-4, atol=0)
    expected = 0.75 + 0.25 * bright.var().item()
    torch.testing.assert_close(model[1].running_var, torch.full((2,), expected), rtol=1e-2, atol=0)


def test_a_share_of_0_changes_nothing(network, bright):
    torch.testing.assert_close(adapted(network, [bright], share=0)(bright), network.eval()(bright))


def test_the_model_itself_stays_as_it_was(network, bright):
    network.train()
    before = copy.deepcopy(network.state_dict())

    adapted(network, [bright], share=1)

    assert network.training
    assert network[1].momentum == 0.1
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_copy_is_ready_to_predict_with_the_same_weights():
    model = create_model("pvt_v2_b0")
    x = torch.randn(4, 3, 64, 64)

    copied = adapted(model, [x], share=0.5)

    assert not any(module.training for module in copied.modules())
    for (name, ours), theirs in zip(copied.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not torch.equal(copied(x)[-1], model.eval()(x)[-1])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(network, share):
    with pytest.raises(CourseError, match="adapt is a share: give it a number between 0 and 1"):
        adapted(network, [], share)
    with pytest.raises(CourseError, match="crumbs is a share: give it a number between 0 and 1"):
        without_crumbs(np.ones((1, 2, 2), dtype=bool), share)


def mask(*pieces):
    """A mask (3, 20, 20) with bars of these lengths."""
    found = np.zeros((3, 20, 20), dtype=bool)
    for row, length in enumerate(pieces):
        found[1, 2 * row, :length] = True
    return found


@pytest.mark.parametrize(
    ("share", "left"), [(0, (20, 10, 2)), (0.1, (20, 10, 2)), (0.11, (20, 10)), (0.5, (20, 10)), (0.51, (20,))]
)
def test_pieces_below_the_share_of_the_largest_are_dropped(share, left):
    np.testing.assert_array_equal(without_crumbs(mask(20, 10, 2), share), mask(*left))


def test_what_hangs_together_across_slices_is_one_piece():
    column = np.zeros((3, 20, 20), dtype=bool)
    column[:, 10, 10] = True
    column[0, 0, :2] = True

    np.testing.assert_array_equal(without_crumbs(column, 0.9)[:, 10, 10], True)
    assert not without_crumbs(column, 0.9)[0, 0].any()


@pytest.mark.parametrize("found", [mask(), mask(5)])
def test_nothing_or_a_single_piece_stays(found):
    np.testing.assert_array_equal(without_crumbs(found, 1), found)
