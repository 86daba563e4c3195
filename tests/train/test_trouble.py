"""What stops a training: numbers that are none, and memory that doesn't suffice."""

import errno
from dataclasses import replace

import numpy as np
import pytest
import torch

from emcad_lib.data.slices import Cache, SliceDataset
from emcad_lib.files import CourseError
from emcad_lib.train import engine, learner, trouble
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.trouble import advising_on_memory, memory_advice


@pytest.fixture
def config(tiny_cache, tmp_path):
    """A run of two short epochs whose steps are so large that the second update's loss is no number."""
    return TrainConfig(
        cache=tiny_cache, runs=tmp_path / "runs", name="run", batch_size=4, epochs=2, slices_per_epoch=16,
        image_size=32, learning_rate=1e20, schedule="constant",
    )  # fmt: skip


def test_a_batch_whose_loss_is_no_number_is_kept_as_the_network_saw_it(config, monkeypatch):
    augment, seen = engine.augment, []

    def watched(*arguments):
        seen.append(augment(*arguments))
        return seen[-1]

    monkeypatch.setattr(engine, "augment", watched)

    with pytest.raises(CourseError) as error:
        train(config, show=False)

    file = config.folder / "not_finite.npz"
    assert f"kept in {file}" in str(error.value)
    assert f"numpy.load({str(file)!r})" in str(error.value)
    with np.load(file, allow_pickle=False) as kept:
        batch = dict(kept)
    x, y = seen[1]
    np.testing.assert_array_equal(batch["x"], x)
    np.testing.assert_array_equal(batch["y"], y)
    data = SliceDataset(Cache(config.cache), "train", 32)
    places = list(zip(batch["patients"], batch["planes"], batch["slices"], strict=True))
    assert places == [tuple(data.where(number)) for number in batch["numbers"]]
    assert len(places) == 4


def test_a_disk_too_full_to_keep_the_batch_does_not_hide_what_happened(config, monkeypatch):
    def full(path, **arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trouble.np, "savez", full)

    with pytest.raises(CourseError, match=r"the loss is nan\. .* could not be kept for a look .* the disk is full"):
        train(config, show=False)


def test_too_little_memory_names_the_micro_batches_that_halve_it_and_the_same_command_then_goes_on(config, monkeypatch):
    loss, calm = learner.mutation_loss, replace(config, learning_rate=1e-3)

    def too_much(maps, target):
        if len(target) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore on that.")
        return loss(maps, target)

    monkeypatch.setattr(learner, "mutation_loss", too_much)
    with pytest.raises(
        CourseError, match="with 4 slices of 32 pixels at once.*--accumulate 2 takes 2 at once"
    ) as error:
        train(calm, show=False)

    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in str(error.value)
    assert "another --name" not in str(error.value)
    assert train(replace(calm, accumulate=2), show=False).finished


def test_the_tensors_that_were_too_much_are_not_held_on_to(config):
    def forward():
        activations = torch.zeros(3)
        raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory for {len(activations)} more")

    with pytest.raises(CourseError) as error, advising_on_memory(config, epoch=1):
        forward()

    frame = error.value.__cause__.__traceback__
    while frame.tb_frame.f_code is not forward.__code__:
        frame = frame.tb_next
    assert "activations" not in frame.tb_frame.f_locals


@pytest.mark.parametrize(
    "shortage",
    [
        torch.OutOfMemoryError("HIP"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
)
def test_every_way_of_running_out_of_memory_is_known(shortage, config):
    with pytest.raises(CourseError, match="Out of memory"), advising_on_memory(config, epoch=1):
        raise shortage


def test_other_errors_stay_what_they_are(config):
    with pytest.raises(RuntimeError, match="size mismatch"), advising_on_memory(config, epoch=1):
        raise RuntimeError("size mismatch")


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "processes", "advised"),
    [
        (25, 1, 1, "--accumulate 3 takes 9 "),
        (25, 5, 1, "--accumulate 13 takes 2 "),
        (16, 1, 1, "--accumulate 2 takes 8 "),
        (16, 1, 2, "--accumulate 2 takes 4 "),
        (3, 1, 1, "--accumulate 3 takes 1 "),
        (2, 1, 1, "smaller --image-size"),
        (25, 13, 1, "smaller --image-size"),
        (5, 1, 2, "smaller --image-size"),  # 3 and 2: no third micro-batch for each process
    ],
)
def test_the_advice_is_the_least_that_halves_what_the_network_sees(config, batch_size, accumulate, processes, advised):
    config = replace(config, batch_size=batch_size, accumulate=accumulate, image_size=64)

    assert advised in memory_advice(config, epoch=1, processes=processes)


def test_in_a_later_epoch_the_advice_asks_for_another_name(config):
    assert "needs another --name" in memory_advice(config, epoch=2)
