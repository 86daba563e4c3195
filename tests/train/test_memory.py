"""What training needs in memory, against numbers worked out by hand and measured another way."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from emcad_lib.files import CourseError, read_json
from emcad_lib.model.pvt_emcad import create_model
from emcad_lib.train.losses import mutation_loss
from emcad_lib.train.memory import (
    Footprint,
    accumulate_for,
    activation_bytes,
    constant_bytes,
    footprint,
    largest_batch,
)
from emcad_lib.train.parts import largest_part


@pytest.fixture(scope="module")
def b0():
    return create_model("pvt_v2_b0")


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_two_small_batches_tell_the_memory_of_a_larger_one_to_the_byte(b0, mixed_precision):
    needs = footprint(b0, 96, mixed_precision)
    assert needs.activations(6) == activation_bytes(b0, 96, 6, mixed_precision)
    assert needs.activations(2) < needs.activations(6)


@pytest.fixture(scope="module")
def use(b0, tmp_path_factory):
    """Bytes in use as an update on two slices goes on, and at the end of its forward pass, by PyTorch's profiler.

    The slices were there before it began.
    """
    x, target = torch.zeros(2, 3, 96, 96), torch.zeros(2, 1, 96, 96)
    given = x.nbytes + target.nbytes

    def in_use(work):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            result = work()
        path = tmp_path_factory.mktemp("profile") / "trace.json"
        seen.export_chrome_trace(str(path))
        changes = [event for event in read_json(path)["traceEvents"] if event["name"] == "[memory]"]
        changes.sort(key=lambda event: event["ts"])
        return given + np.cumsum([event["args"]["Bytes"] for event in changes]), result

    after_forward, loss = in_use(lambda: mutation_loss(b0.train()(x), target))
    loss.backward()
    update, _ = in_use(lambda: mutation_loss(b0(x), target).backward())  # the gradients are there already
    b0.zero_grad()
    return update, after_forward[-1]


def test_what_is_counted_is_what_is_in_use_at_the_end_of_the_forward_pass(b0, use):
    assert activation_bytes(b0, 96, 2) == pytest.approx(use[1], rel=0.03)


def test_the_most_that_is_in_use_is_hardly_less_than_what_is_counted_and_not_more(b0, use):
    needs = footprint(b0, 96)
    counted = needs.total(2) - needs.constant
    assert 0.9 * counted < use[0].max() < counted


def test_the_loss_is_counted_with_the_network(b0, monkeypatch):
    whole = activation_bytes(b0, 96, 2)
    monkeypatch.setattr("emcad_lib.train.memory.mutation_loss", lambda maps, target: maps[-1].mean())
    assert whole - activation_bytes(b0, 96, 2) >= 2 * 96 * 96 * 4  # a map of each slice at the very least


def test_mixed_precision_halves_the_most_and_leaves_layer_normalisation_and_loss_in_32_bits(b0, monkeypatch):
    whole, mixed = footprint(b0, 96), footprint(b0, 96, mixed_precision=True)
    assert 0.5 < mixed.per_slice / whole.per_slice < 0.75
    weights = sum(weight.numel() for weight in b0.parameters())
    assert whole.per_pass < 100_000  # means and spreads of batch normalisation
    assert 0.9 * 2 * weights < mixed.per_pass < 2 * weights + 100_000  # and a copy of the weights in two bytes

    monkeypatch.setattr("emcad_lib.train.memory._in_32_bits", lambda _module, inputs: inputs)
    assert footprint(b0, 96, mixed_precision=True).per_slice < 0.95 * mixed.per_slice


def test_the_constant_part_is_four_numbers_for_each_weight_and_the_running_statistics():
    model = torch.nn.Sequential(torch.nn.Linear(10, 20, bias=False), torch.nn.BatchNorm1d(20))
    statistics = 2 * 20 * 4 + 8  # means and variances; how many batches there were
    assert constant_bytes(model) == 4 * 4 * (200 + 40) + statistics


def test_the_model_stays_as_it_was(b0):
    model = create_model("pvt_v2_b0").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    activation_bytes(model, 64, 2, mixed_precision=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_channels_and_regions_are_the_models():
    one, four = (activation_bytes(create_model(in_channels=channels), 64, 2) for channels in (3, 4))
    assert four - one == 2 * 64 * 64 * 4
    regions = activation_bytes(create_model(num_classes=3), 64, 2)
    assert regions > one + 2 * (2 * 64 * 64 * 4)


def test_the_largest_batch_fits_at_its_worst_moment_and_one_more_does_not():
    needs = Footprint(constant=1000, per_pass=100, per_slice=40, for_a_moment=10)
    assert (needs.activations(7), needs.total(7)) == (380, 1450)
    assert largest_batch(needs, 1450) == 7
    assert largest_batch(needs, 1449) == 6
    assert largest_batch(needs, 500) == 0


@pytest.mark.parametrize(("batch_size", "passes"), [(1, 1), (7, 1), (8, 2), (14, 2), (16, 3), (25, 4)])
def test_an_update_is_divided_into_as_few_passes_as_fit(batch_size, passes):
    needs = Footprint(constant=1000, per_pass=100, per_slice=40, for_a_moment=10)
    assert accumulate_for(batch_size, needs, 1499) == passes
    assert largest_part(batch_size, passes) <= 7
    assert passes == 1 or largest_part(batch_size, passes - 1) > 7


def test_where_not_even_one_slice_fits_it_is_said_what_to_change():
    needs = Footprint(constant=3 * 10**9, per_pass=0, per_slice=10**9)
    with pytest.raises(CourseError, match=r"takes 4.00 GB, and 3.50 GB are free. Take a smaller --image-size"):
        accumulate_for(16, needs, 3.5e9)


def test_a_batch_that_is_too_small_to_train_with_is_refused(b0):
    with pytest.raises(CourseError, match="32 x 32 pixels leaves one value per channel"):
        activation_bytes(b0, 32, 1)
