"""A folded network is the same network with less to do."""

import copy

import pytest
import torch
from torch import nn

from emcad_lib import create_model
from emcad_lib.evaluate.fold import folded


def trained(**settings):
    """A network whose batch normalisation remembers something, in training mode."""
    model = create_model("pvt_v2_b0", **settings).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model


@pytest.mark.parametrize("settings", [{}, {"in_channels": 1, "num_classes": 3}, {"variant": "concatenation"}], ids=str)
@torch.inference_mode()
def test_a_folded_network_gives_the_same_logits_without_any_batch_normalisation(settings):
    model = trained(**settings)
    x = torch.randn(2, model.config.in_channels, 64, 96)

    quick = folded(model)

    assert not quick.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    for found, expected in zip(quick(x), model.eval()(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_folding_leaves_the_network_itself_as_it_was():
    model = trained()
    before = copy.deepcopy(model.state_dict())

    folded(model)

    assert model.training
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.stride() == before[name].stride()


def test_a_normalisation_without_a_memory_stays_because_it_follows_the_batch():
    model = trained()
    model.decoder.eucb1.depthwise[1] = nn.BatchNorm2d(64, track_running_stats=False)
    x = torch.randn(2, 3, 32, 32)

    with torch.inference_mode():
        torch.testing.assert_close(folded(model)(x)[-1], model.eval()(x)[-1], rtol=1e-4, atol=1e-3)


def test_a_model_of_another_kind_comes_back_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1))

    assert folded(model) is model
