"""Micro-batches, batch normalisation that stands still, and mixed precision: what the network sees at once."""

from dataclasses import replace

import pytest
import torch

from emcad_lib.evaluate.metrics import DEFINITIONS
from emcad_lib.train import engine, learner
from emcad_lib.train.checkpoint import load_state
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train, train_one_epoch
from emcad_lib.train.learner import add_gradients, build_model
from emcad_lib.train.run import prepare_run


@pytest.fixture
def config(tiny_cache, tmp_path):
    """A run of short epochs, 13 slices each: a batch of ten, and a last one of three."""
    return TrainConfig(
        cache=tiny_cache, runs=tmp_path / "runs", name="run", batch_size=10, epochs=2, slices_per_epoch=13,
        image_size=32, drop_path=0.0, freeze_norm=True, learning_rate=3e-5,
    )  # fmt: skip


def after_two_epochs(config):
    """The run's numbers and weights, after four updates."""
    run = prepare_run(config)
    trained = [train_one_epoch(run, epoch) for epoch in (1, 2)]
    counts = [{name: value for name, value in epoch.items() if "seconds" not in name} for epoch in trained]
    return [{k: v for k, v in c.items() if k != "images_per_second"} for c in counts], run.network.state_dict()


def largest_difference(weights, others):
    return max((weights[key].float() - tensor.float()).abs().max().item() for key, tensor in others.items())


def sizes_seen(monkeypatch, config):
    """How many slices the network saw at once, forward pass by forward pass, in one epoch."""
    loss, seen = learner.mutation_loss, []

    def watched(maps, target):
        seen.append((len(maps[0]), len(target)))
        return loss(maps, target)

    monkeypatch.setattr(learner, "mutation_loss", watched)
    train_one_epoch(prepare_run(config), 1)
    assert all(maps == target for maps, target in seen)
    return [target for _, target in seen]


def test_the_network_sees_an_updates_slices_a_micro_batch_at_a_time(config, monkeypatch):
    assert sizes_seen(monkeypatch, replace(config, accumulate=5)) == [2, 2, 2, 2, 2, 1, 2]
    assert sizes_seen(monkeypatch, config) == [10, 3]


@pytest.mark.parametrize("accumulate", [5, 4])
def test_micro_batches_give_the_updates_of_the_whole_batch_when_batch_normalisation_is_frozen(accumulate, config):
    numbers, weights = after_two_epochs(config)

    in_parts, weights_in_parts = after_two_epochs(replace(config, accumulate=accumulate))

    for whole, parts in zip(numbers, in_parts, strict=True):
        assert parts == pytest.approx(whole, rel=1e-5)
        assert (parts["updates"], parts["samples"]) == (2, 13)
    start = build_model(config).state_dict()
    assert largest_difference(weights, start) > 5e-5  # they have moved
    assert largest_difference(weights_in_parts, weights) < 1e-5


def test_each_micro_batch_normalises_itself_unless_batch_normalisation_is_frozen(config):
    thawed = replace(config, freeze_norm=False)
    (first, _), weights = after_two_epochs(thawed)

    (in_parts, _), weights_in_parts = after_two_epochs(replace(thawed, accumulate=3))

    assert in_parts["train_loss"] != pytest.approx(first["train_loss"], rel=1e-4)
    assert largest_difference(weights_in_parts, weights) > 2e-5


def test_parts_of_unequal_size_weigh_by_their_slices(config):
    """Ten slices in parts of 3, 3 and 4: the mean of three means isn't the mean of ten slices."""
    run = prepare_run(config)
    x, y, _ = next(iter(run.train_batches))
    run.start_training()

    def gradients(accumulate):
        run.config = replace(config, accumulate=accumulate)
        run.optimizer.zero_grad()
        loss = add_gradients(run, x, y)
        return loss, torch.cat([weight.grad.flatten() for weight in run.network.parameters()])

    whole, expected = gradients(1)
    loss, found = gradients(3)

    assert loss == pytest.approx(whole, rel=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_frozen_normalisation_keeps_its_statistics_and_still_learns_scale_and_shift(config):
    run = prepare_run(config)
    norms = [module for module in run.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [(norm.running_mean.clone(), norm.running_var.clone(), norm.weight.detach().clone()) for norm in norms]

    train_one_epoch(run, 1)

    assert len(norms) > 10
    for norm, (mean, variance, scale) in zip(norms, before, strict=True):
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(norm.running_var, variance)
        assert not torch.equal(norm.weight, scale)


def test_the_same_slices_are_varied_in_the_same_way_whatever_the_micro_batches(config, monkeypatch):
    def seen(accumulate):
        slices = []
        monkeypatch.setattr(engine, "take_step", lambda run, x, y: slices.append((x, y)) or 1.0)
        train_one_epoch(prepare_run(replace(config, accumulate=accumulate)), 1)
        return torch.cat([x for x, _ in slices]), torch.cat([y for _, y in slices])

    (x, y), (x_in_parts, y_in_parts) = seen(1), seen(5)

    assert torch.equal(x, x_in_parts)
    assert torch.equal(y, y_in_parts)


def test_at_32_pixels_a_last_batch_that_would_leave_a_slice_alone_is_left_out(config):
    def samples(**settings):
        return train_one_epoch(prepare_run(replace(config, accumulate=5, **settings)), 1)["samples"]

    assert samples() == 13
    assert samples(freeze_norm=False) == 10  # 3 slices in parts of 2 at most are 1 and 2


def test_micro_batches_and_frozen_normalisation_belong_to_what_a_run_is(config):
    settings = replace(config, accumulate=5).settings()

    assert (settings["accumulate"], settings["freeze_norm"]) == (5, True)


# Sixteen bits


def test_the_loss_is_computed_with_32_bits_and_what_leads_to_it_with_16(config, monkeypatch):
    loss, kinds = learner.mutation_loss, set()

    def watched(maps, target):
        value = loss(maps, target)
        kinds.update({maps[0].dtype, target.dtype, value.dtype})
        return value

    monkeypatch.setattr(learner, "mutation_loss", watched)
    run = prepare_run(replace(config, mixed_precision="bf16", accumulate=5))
    inside = []
    run.network.heads[0].register_forward_hook(lambda module, given, out: inside.append(out.dtype))

    train_one_epoch(run, 1)

    assert kinds == {torch.float32}
    assert set(inside) == {torch.bfloat16}
    assert {weight.grad.dtype for weight in run.network.parameters()} == {torch.float32}


def test_micro_batches_and_sixteen_bits_get_along(config):
    mixed = replace(config, mixed_precision="bf16")
    numbers, _ = after_two_epochs(mixed)

    in_parts, _ = after_two_epochs(replace(mixed, accumulate=5))

    for whole, parts in zip(numbers, in_parts, strict=True):
        assert parts["train_loss"] == pytest.approx(whole["train_loss"], rel=0.01)


def test_a_resumed_run_goes_on_with_sixteen_bits_and_micro_batches(config, monkeypatch):
    settings = {"mixed_precision": "bf16", "accumulate": 5, "schedule": "constant"}
    whole = train(replace(config, name="whole", **settings), show=False)
    train(replace(config, epochs=1, **settings), show=False)
    precisions, prepare = [], learner.start_accelerator

    def watched(config):
        accelerator = prepare(config)
        precisions.append(accelerator.mixed_precision)
        return accelerator

    monkeypatch.setattr(learner, "start_accelerator", watched)

    resumed = train(replace(config, **settings), show=False)

    assert precisions == ["bf16"]
    columns = ["epoch", "updates", "samples", "train_loss", "val_loss", *(f"dice_{name}" for name in DEFINITIONS)]
    assert resumed.history[columns].equals(whole.history[columns])
    assert load_state(resumed.folder)["scaler"] is None  # bf16 needs no loss scaling


# Speed


def test_the_optimisers_one_call_for_all_weights_gives_the_steps_of_the_plain_one(config):
    run = prepare_run(config)
    plain = build_model(config)
    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=False, foreach=False
    )
    assert run.optimizer.param_groups[0]["fused"]

    for _ in range(3):
        for ours, theirs in zip(run.network.parameters(), plain.parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        run.optimizer.step()
        optimizer.step()

    assert largest_difference(run.network.state_dict(), plain.state_dict()) < 1e-6
