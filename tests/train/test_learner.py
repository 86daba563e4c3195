"""What learns, before it has any data: how it lies in memory, and what a step does."""

import math

import pytest
import torch
from torch import nn

from emcad_lib.train import learner as module
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.learner import prepare_learner, take_step


@pytest.fixture
def learner():
    learner = prepare_learner(TrainConfig("", "", "step", batch_size=2, image_size=64, drop_path=0.0))
    learner.start_training()
    return learner


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 64, 64, generator=generator)
    return x, (torch.rand(2, 1, 64, 64, generator=generator) < 0.1).float()


def test_each_normalisation_meets_a_pixels_channels_together_on_the_way_there_and_back(learner, batch):
    met = {}

    def look(kind, name, tensor):
        met[kind, name] = tensor.is_contiguous(memory_format=torch.channels_last)

    for name, layer in learner.network.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda layer, x, _, name=name: look("forward", name, x[0]))
            layer.register_full_backward_hook(lambda layer, _, slope, name=name: look("backward", name, slope[0]))

    take_step(learner, *batch)

    assert len(met) == 2 * 32
    assert [place for place, together in met.items() if not together] == []


def test_a_step_is_an_update_of_every_weight_that_has_a_gradient(learner, batch):
    before = {name: weight.detach().clone() for name, weight in learner.network.named_parameters()}

    loss = take_step(learner, *batch)

    assert 5 < loss < 20  # fifteen terms
    for name, weight in learner.network.named_parameters():
        assert weight.grad is None or not weight.grad.any() or not torch.equal(weight, before[name]), name


def test_a_loss_that_is_no_number_leaves_the_weights_as_they_are(learner, batch, monkeypatch):
    loss = module.mutation_loss
    monkeypatch.setattr(module, "mutation_loss", lambda maps, target: loss(maps, target) * math.nan)
    before = {name: value.clone() for name, value in learner.network.named_parameters()}

    assert math.isnan(take_step(learner, *batch))

    assert all(torch.equal(weight, before[name]) for name, weight in learner.network.named_parameters())
