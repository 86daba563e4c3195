"""The five lemmas that the lessons prove about EMCAD's blocks (03, 05 and 06), checked on the library's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emcad_lib.model.blocks import EUCB, LGAG, MSCB, MSDC, channel_shuffle


def randomised(block: nn.Module) -> nn.Module:
    """In double precision, with random weights and statistics."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in block.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.normal_()
    return block.double()


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """A convolution without bias and the batch normalisation behind it, in evaluation mode: one kernel, one bias."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return convolution.weight * scale[:, None, None, None], norm.bias - scale * norm.running_mean


@pytest.mark.parametrize("channels", [4, 9])
def test_a_shuffle_with_as_many_groups_as_channels_is_the_identity(channels):
    x = torch.randn(2, channels, 3, 5)
    assert torch.equal(channel_shuffle(x, channels), x)
    assert torch.equal(channel_shuffle(x, 1), x)


@pytest.mark.parametrize(("channels", "out_channels"), [(6, 6), (4, 6)])
def test_the_shuffle_of_an_mscb_folds_into_the_next_pointwise_convolution(channels, out_channels):
    block = randomised(MSCB(channels, out_channels)).eval()
    x = torch.randn(2, channels, 7, 5, dtype=torch.float64)
    wanted = block(x)

    order = channel_shuffle(torch.arange(2 * channels).view(1, -1, 1, 1), block.groups).flatten()
    assert order.tolist() != list(range(2 * channels))  # it does shuffle something
    with torch.no_grad():
        permuted = torch.empty_like(block.narrow[0].weight)
        permuted[:, order] = block.narrow[0].weight
        block.narrow[0].weight.copy_(permuted)
    block.groups = 1

    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("channels", [4, 10])
def test_biases_before_batch_normalisation_do_nothing_in_training_and_learn_nothing(channels):
    plain = randomised(LGAG(channels))
    shifted = LGAG(channels).double()
    shifted.load_state_dict(plain.state_dict())
    biases = [part[0].bias for part in (shifted.judge_decoder, shifted.judge_skip, shifted.agree)]
    with torch.no_grad():
        for bias in biases:
            bias.add_(100)
    g, x = torch.randn(2, 3, channels, 6, 6, dtype=torch.float64)

    opened = shifted(g, x)
    torch.testing.assert_close(opened, plain(g, x))
    gradients = torch.autograd.grad(opened.square().sum(), [*biases, shifted.agree[0].weight])
    assert all(gradient.abs().max() < 1e-9 for gradient in gradients[:-1])
    assert gradients[-1].abs().max() > 1e-3
    # In evaluation mode the remembered mean is subtracted, whatever the bias is now: there it does count.
    shifted.load_state_dict(plain.state_dict() | {"agree.0.bias": plain.agree[0].bias + 1})
    assert not torch.allclose(shifted.eval()(g, x), plain.eval()(g, x))


@pytest.mark.parametrize("channels", [3, 8])
def test_a_trained_batch_normalisation_folds_into_the_convolution_before_it(channels):
    block = randomised(EUCB(channels, 5)).eval()
    x = torch.randn(2, channels, 4, 6, dtype=torch.float64)
    kernel, bias = folded(block.depthwise[0], block.depthwise[1])
    doubled = F.interpolate(x, scale_factor=2, mode="nearest")

    smooth = F.relu(F.conv2d(doubled, kernel, bias, padding=1, groups=channels))

    torch.testing.assert_close(block.pointwise(smooth), block(x))
    assert not torch.allclose(block.train()(x), block.pointwise(smooth))  # only in evaluation mode


@pytest.mark.parametrize(("channels", "kernel_sizes"), [(3, (1, 3, 5)), (6, (3, 5, 7))])
def test_without_activations_the_branches_are_one_convolution_and_with_them_they_are_not(channels, kernel_sizes):
    block = randomised(MSDC(channels, kernel_sizes)).eval()
    largest = max(kernel_sizes)
    kernel, bias = 0, 0
    for size, branch in zip(kernel_sizes, block.branches, strict=True):
        one_kernel, one_bias = folded(branch[0], branch[1])
        kernel, bias = kernel + F.pad(one_kernel, [(largest - size) // 2] * 4), bias + one_bias
    x = torch.randn(2, channels, 9, 8, dtype=torch.float64)
    merged = F.conv2d(x, kernel, bias, padding=largest // 2, groups=channels)

    with_activations = block(x)
    for branch in block.branches:
        branch[2] = nn.Identity()

    torch.testing.assert_close(block(x), merged)
    for attempt in (merged, F.relu(merged), F.relu6(merged)):
        assert not torch.allclose(with_activations, attempt)


def test_an_msdc_can_compute_a_magnitude_which_no_single_convolution_can():
    """Of flat images t: any one convolution gives a t + b, which with a ReLU behind it never falls and then rises."""
    block = MSDC(1, (1, 3)).eval()
    with torch.no_grad():
        for branch, sign in zip(block.branches, (1, -1), strict=True):
            branch[0].weight.zero_()
            middle = branch[0].weight.shape[-1] // 2
            branch[0].weight[0, 0, middle, middle] = sign
        values = [float(block(torch.full((1, 1, 5, 5), t))[0, 0, 2, 2]) for t in (-4.0, -1.0, 0.0, 1.0, 4.0)]
    assert values == pytest.approx([4, 1, 0, 1, 4], rel=1e-4)
