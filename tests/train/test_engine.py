"""The training loop: what it learns, what it keeps, and what stops it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from emcad_lib.data.preprocess import preprocess
from emcad_lib.data.slices import Cache, EpochSampler, SliceDataset
from emcad_lib.evaluate.metrics import dice_by_definition
from emcad_lib.files import CourseError, read_json, write_json
from emcad_lib.model.weights import load_weights, save_weights
from emcad_lib.segment import segment_patient
from emcad_lib.train import checkpoint, engine, learner
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train, train_one_epoch, validate
from emcad_lib.train.learner import build_model
from emcad_lib.train.ledger import HISTORY, read_ledger
from emcad_lib.train.losses import boundary_loss, segmentation_loss
from emcad_lib.train.run import prepare_run
from emcad_lib.train.schedule import learning_rate_at

TIMES = ["seconds", "images_per_second"]
DICES = [column for column in HISTORY if column.startswith("dice_")]


@pytest.fixture
def config(tiny_cache, tmp_path):
    """A run of two short epochs, 16 slices each, at 32 pixels."""
    return TrainConfig(
        cache=tiny_cache, runs=tmp_path / "runs", name="run", batch_size=4, epochs=2, slices_per_epoch=16, image_size=32
    )


@pytest.fixture(scope="module")
def undisturbed(tiny_cache, tmp_path_factory):
    """The ledger of a run of three epochs that nothing interrupted."""
    runs = tmp_path_factory.mktemp("undisturbed")
    settings = {"batch_size": 4, "epochs": 3, "slices_per_epoch": 16, "image_size": 32}
    return train(TrainConfig(cache=tiny_cache, runs=runs, name="run", **settings), show=False)


def assert_same_history(ledger, expected):
    columns = [column for column in HISTORY if column not in TIMES]
    pd.testing.assert_frame_equal(ledger.history[columns], expected.history[columns], rtol=0, atol=1e-6)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def kill_at(monkeypatch, module, name, call):
    """Let the process "die" at the given call of a function, counted from 1, before it does anything."""
    original, calls = getattr(module, name), []

    def dying(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, dying)


# What a run leaves behind


def test_a_run_leaves_its_ledger_its_weights_and_a_state_to_go_on_from(undisturbed):
    names = {path.name for path in undisturbed.folder.iterdir()}

    assert names == {"run.json", "history.csv", "best.safetensors", "last.safetensors", "last_state.pt"}


def test_the_history_counts_updates_samples_and_seconds_from_the_start(undisturbed):
    history = undisturbed.history

    assert list(history.columns) == list(HISTORY)
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["updates"].tolist() == [4, 8, 12]
    assert history["samples"].tolist() == [16, 32, 48]
    assert history["seconds"].is_monotonic_increasing
    assert np.isfinite(history.to_numpy()).all()
    assert history["images_per_second"][0] == pytest.approx(16 / history["seconds"][0])


def test_the_ledger_on_disk_is_the_one_that_was_returned(undisturbed):
    back = read_ledger(undisturbed.folder)

    assert back.run == undisturbed.run
    pd.testing.assert_frame_equal(back.history, undisturbed.history)


def test_run_json_says_what_was_run_on_what(undisturbed, tiny_cache):
    run = read_json(undisturbed.folder / "run.json")
    cache = Cache(tiny_cache)

    assert run["config"]["batch_size"] == 4
    assert run["data"] == {"manifest_sha256": cache.hash, "train": cache.names("train"), "val": cache.names("val")}
    assert run["parameters"] == 3_916_783  # the whole network's 3,916,795 without the 12 of one-channel input
    assert run["finished"] >= run["started"]
    assert run["seconds"] >= undisturbed.history["seconds"].iloc[-1]
    assert {"code", "versions", "machine", "resumed"} <= run.keys()
    assert str(tiny_cache.parent) not in json.dumps(run)


def test_the_best_weights_are_those_of_the_epoch_with_the_highest_dice_and_say_how_to_use_them(undisturbed):
    model = load_weights(undisturbed.folder / "best.safetensors")

    assert model.metadata["epoch"] == f"{undisturbed.best['epoch']:.0f}"
    assert json.loads(model.metadata["modalities"]) == ["flair", "t1ce", "t2"]
    assert json.loads(model.metadata["regions"]) == ["whole"]
    assert model.metadata["image_size"] == "32"


def test_the_last_weights_are_those_of_the_last_state(undisturbed):
    weights = load_weights(undisturbed.folder / "last.safetensors").state_dict()
    state = checkpoint.load_state(undisturbed.folder)

    assert state["epoch"] == 3
    assert all(torch.equal(weights[key], tensor) for key, tensor in state["model"].items())


# Learning


def test_training_on_the_same_few_slices_lowers_the_loss(config):
    ledger = train(replace(config, epochs=3, slices_per_epoch=0, augment=False), show=False)

    losses = ledger.history["train_loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


def test_batch_normalisation_goes_on_learning_after_the_first_validation(config):
    """The published loop stays in evaluation mode after its first validation; this one must not."""
    run = prepare_run(config)
    train_one_epoch(run, 1)
    validate(run)
    means = [module.running_mean for module in run.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [mean.clone() for mean in means]

    train_one_epoch(run, 2)

    assert len(before) > 10
    assert not any(torch.equal(mean, old) for mean, old in zip(means, before, strict=True))


def test_validation_changes_nothing_and_gives_the_same_twice(config):
    run = prepare_run(config)
    train_one_epoch(run, 1)
    before = {key: tensor.clone() for key, tensor in run.network.state_dict().items()}

    first, second = validate(run), validate(run)

    assert first == second
    assert all(torch.equal(before[key], tensor) for key, tensor in run.network.state_dict().items())


def test_validation_scores_every_slice_of_every_patient(tiny_patients, tmp_path, config):
    tiny_patients(tmp_path / "patients", 12)
    preprocess(tmp_path / "patients", tmp_path / "cache", workers=1)
    config = replace(config, cache=tmp_path / "cache", regions=("whole", "core"), image_size=96)
    cache = Cache(config.cache)
    run = prepare_run(config)
    run.model.eval()

    predictions, targets, losses = [], [], []
    for name in cache.names("val"):
        data = SliceDataset(cache, "val", 96, regions=("whole", "core"), patients=[name])
        x, y = data.__getitems__(list(range(len(data))))
        with torch.no_grad():
            logits = run.model(x)[-1]
        predictions.append(logits.sigmoid().numpy() > 0.5)
        targets.append(y.numpy() > 0.5)
        losses += [segmentation_loss(logits[i : i + 1], y[i : i + 1]).item() for i in range(len(data))]
    by_region = [dice_by_definition([p[:, r] for p in predictions], [t[:, r] for t in targets]) for r in (0, 1)]

    scores = validate(run)

    assert len(targets) > 1
    assert scores["val_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    for name in by_region[0]:
        mean = (by_region[0][name] + by_region[1][name]) / 2
        assert scores[f"dice_{name}"] == pytest.approx(mean, abs=1e-6), name


def test_a_last_batch_of_one_slice_is_left_out_and_a_larger_one_is_kept(config):
    def samples(slices):
        return train_one_epoch(prepare_run(replace(config, slices_per_epoch=slices)), 1)["samples"]

    assert samples(9) == 8
    assert samples(10) == 10


def test_augmentation_changes_what_the_network_sees(config):
    def loss(augment):
        return train_one_epoch(prepare_run(replace(config, augment=augment, drop_path=0.0)), 1)["train_loss"]

    assert loss(True) != loss(False)


def test_sixteen_bit_training_gives_nearly_the_same_losses(config):
    plain = train(replace(config, name="plain"), show=False)
    mixed = train(replace(config, name="mixed", mixed_precision="bf16"), show=False)

    assert not mixed.history["train_loss"].equals(plain.history["train_loss"])
    np.testing.assert_allclose(mixed.history["train_loss"], plain.history["train_loss"], rtol=0.05)


# The learning rate


def test_the_constant_schedule_stays_where_it_is(config):
    constant = replace(config, schedule="constant", learning_rate=1e-4)

    assert {learning_rate_at(constant, update, 100) for update in range(100)} == {1e-4}


def test_the_cosine_schedule_rises_for_a_twentieth_and_falls_to_nothing(config):
    cosine = replace(config, schedule="cosine", learning_rate=0.5)

    rates = [learning_rate_at(cosine, update, 100) for update in range(100)]

    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[5] == 0.5  # the top of the cosine
    assert learning_rate_at(cosine, 62, 118) == pytest.approx(0.25)  # 6 to rise, then half of the 112 that are left
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_the_warm_up_can_be_longer_or_left_out(config):
    rates = {share: learning_rate_at(replace(config, warm_up=share), 0, 100) for share in (0.0, 0.05, 0.5)}

    assert [rates[share] / config.learning_rate for share in (0.0, 0.05, 0.5)] == pytest.approx([1, 0.2, 0.02])


def test_on_a_plateau_of_two_epochs_the_rate_falls_and_a_better_loss_keeps_it(config):
    plateau = replace(config, schedule="plateau", learning_rate=1.0)

    def rate(*losses, epochs=20):
        return learning_rate_at(replace(plateau, epochs=epochs), 0, 100, losses)

    assert rate() == rate(3.0) == rate(3.0, 2.0, 1.0) == rate(3.0, 3.1, 2.0, 2.1) == 1
    assert rate(3.0, 3.1, 3.2) == pytest.approx(0.3)
    assert rate(3.0, 3.1, 3.2, 3.3, 3.4) == pytest.approx(0.09)
    assert rate(3.0, 3.1, epochs=8) == pytest.approx(0.3)  # a short run has no epoch to wait
    assert rate(3.0, *[3.1] * 10, epochs=200) == 1


def test_a_run_on_a_plateau_lowers_its_rate_also_when_it_is_resumed(config, monkeypatch):
    plateau = replace(config, schedule="plateau", epochs=4, slices_per_epoch=4)
    monkeypatch.setattr(engine, "validate", lambda run: {"val_loss": 1.0} | dict.fromkeys(DICES, 0.5))

    train(replace(plateau, epochs=3), show=False)
    resumed = train(plateau, show=False)

    assert resumed.history["learning_rate"].tolist() == pytest.approx([1e-3, 1e-3, 3e-4, 9e-5])


# Stopping early, averaging, and other things beyond the published training


@pytest.mark.parametrize("stops", [[3], [1, 3], [2, 3]])
def test_a_run_that_does_not_get_better_stops_after_its_patience_and_stays_stopped(config, monkeypatch, stops):
    scores = [0.2, 0.4, 0.3, 0.4, 0.1, 0.9]
    patient = replace(config, patience=2, slices_per_epoch=4, epochs=6)
    done = []

    def validated(run):
        done.append(1)
        return {"val_loss": 1.0} | dict.fromkeys(DICES, scores[len(done) - 1])

    monkeypatch.setattr(engine, "validate", validated)
    for epochs in stops:  # interrupted before
        train(replace(patient, epochs=epochs), show=False)

    ledger = train(patient, show=False)

    assert len(ledger.rows) == 4
    assert ledger.finished
    assert len(train(replace(patient, epochs=9), show=False).rows) == 4
    assert len(done) == 4


def test_averaged_weights_are_the_running_average_and_are_what_is_validated_and_stored(config):
    averaged = replace(config, average=0.5, epochs=1, slices_per_epoch=12, drop_path=0.0)
    run = prepare_run(averaged)
    passed = []
    step = run.optimizer.step
    run.optimizer.step = lambda: (step(), passed.append(run.network.heads[3].weight.detach().clone()))

    train_one_epoch(run, 1)

    first, second, third = passed
    expected = 0.5 * (0.5 * first + 0.5 * second) + 0.5 * third
    torch.testing.assert_close(run.predictor.heads[3].weight, expected)
    assert not torch.equal(run.network.heads[3].weight, expected)
    for ours, theirs in zip(run.predictor.buffers(), run.network.buffers(), strict=True):
        assert torch.equal(ours, theirs)  # the statistics are those of now
    scores = validate(run)
    checkpoint.save_checkpoint(run, "last.safetensors", {"epoch": 1, "dice_patient": 0.0})
    stored = load_weights(averaged.folder / "last.safetensors")
    torch.testing.assert_close(stored.heads[3].weight, expected)
    run.average = None
    assert validate(run)["val_loss"] != scores["val_loss"]


def test_a_run_with_averaged_weights_and_neighbours_goes_on_to_the_same_history(config, monkeypatch):
    settings = {"average": 0.6, "neighbours": 1, "dropout": 0.2, "boundary": 1.0, "epochs": 3}
    expected = train(replace(config, name="whole", **settings), show=False)
    kill_at(monkeypatch, engine, "train_one_epoch", 3)
    with pytest.raises(Killed):
        train(replace(config, **settings), show=False)
    monkeypatch.undo()

    resumed = train(replace(config, **settings), show=False)

    assert_same_history(resumed, expected)
    for name in ("best.safetensors", "last.safetensors"):
        one, other = (load_weights(ledger.folder / name).state_dict() for ledger in (resumed, expected))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_chosen_variations_are_those_that_are_used(config, monkeypatch):
    asked = []
    monkeypatch.setattr(engine, "augment", lambda x, y, generator, *how: (asked.append(how), (x, y))[1])

    train_one_epoch(prepare_run(replace(config, variations=("flip", "elastic"), neighbours=1)), 1)

    assert set(asked) == {(("flip", "elastic"), 3)}


@pytest.mark.parametrize("network", ["unet", "attention_unet", "smp_unet"])
def test_other_networks_train_by_the_same_loop_and_segment_by_the_same_command(
    network, config, tiny_patients, tmp_path
):
    ledger = train(replace(config, network=network, epochs=1, regions=("whole", "core")), show=False)
    (patient,) = tiny_patients(tmp_path / "patients", patients=1)

    written = segment_patient(patient, tmp_path / "out.nii.gz", ledger.folder / "last.safetensors", refine=False)

    assert written.exists()
    assert load_weights(ledger.folder / "best.safetensors").config.network == network


def test_the_boundary_loss_is_added_with_its_weight(config):
    run = prepare_run(replace(config, drop_path=0.0, augment=False))
    x, y, _ = next(iter(run.train_batches))
    run.start_training()
    run.network.eval()  # else batch normalisation moves between the two
    plain = learner.add_gradients(run, x, y)
    run.config = replace(run.config, boundary=20.0)

    with_boundary = learner.add_gradients(run, x, y)

    assert with_boundary - plain == pytest.approx(20 * boundary_loss(run.network(x)[-1], y).item(), rel=1e-4)


def test_the_optimiser_uses_the_scheduled_rate(config):
    run = prepare_run(config)

    trained = train_one_epoch(run, 2)

    assert trained["learning_rate"] == learning_rate_at(config, 7, 8)
    assert run.optimizer.param_groups[0]["lr"] == trained["learning_rate"]


# Starting from weights


def test_a_run_starts_from_the_weights_it_is_given(config, tmp_path):
    earlier = build_model(replace(config, seed=7))
    save_weights(earlier, tmp_path / "earlier.safetensors")

    model = build_model(replace(config, weights=str(tmp_path / "earlier.safetensors")))

    assert all(torch.equal(earlier.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


def test_weights_of_another_network_are_refused(config, tmp_path):
    save_weights(build_model(replace(config, regions=("whole", "core"))), tmp_path / "two.safetensors")

    with pytest.raises(
        CourseError, match="two.safetensors: .* num_classes 2, this run has 1. Give the run the settings"
    ):
        build_model(replace(config, weights=str(tmp_path / "two.safetensors")))


def test_an_encoder_starts_from_a_local_file(config, tmp_path):
    encoder = build_model(replace(config, seed=7)).encoder.state_dict()
    torch.save(encoder, tmp_path / "encoder.pth")

    model = build_model(replace(config, encoder_weights=str(tmp_path / "encoder.pth")))

    assert all(torch.equal(encoder[key], tensor) for key, tensor in model.encoder.state_dict().items())


def test_the_seed_decides_the_first_weights(config):
    first, again, other = (build_model(replace(config, seed=seed)).heads[0].weight for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Going on


def test_a_run_of_that_name_is_never_overwritten(config):
    train(config, show=False)
    before = {path.name: path.read_bytes() for path in config.folder.iterdir()}

    with pytest.raises(CourseError, match="--resume, or take another --name"):
        train(replace(config, resume=False), show=False)
    with pytest.raises(CourseError, match="seed was 0, is now 1. Take another --name"):
        train(replace(config, seed=1), show=False)

    assert {path.name: path.read_bytes() for path in config.folder.iterdir()} == before


def test_a_finished_run_is_returned_without_training_even_when_its_state_is_gone(config, monkeypatch):
    finished = train(config, show=False)
    monkeypatch.setattr(engine, "train_one_epoch", None)
    (config.folder / "last_state.pt").unlink()

    again = train(config, show=False)

    assert again.run == finished.run
    pd.testing.assert_frame_equal(again.history, finished.history)


def test_epochs_whose_state_is_gone_are_not_trained_over(config):
    train(config, show=False)
    (config.folder / "last_state.pt").unlink()

    with pytest.raises(CourseError, match=r"last_state.pt is missing, so this run can't go on. Take another --name"):
        train(replace(config, epochs=3), show=False)

    assert len(read_ledger(config.folder).rows) == 2


def test_before_its_first_epoch_is_done_a_run_may_begin_anew_with_other_settings(config, monkeypatch):
    """It has nothing to lose. So a run goes on that has learned in its first update that memory does not suffice."""
    with monkeypatch.context() as patch:
        kill_at(patch, learner, "mutation_loss", 1)
        with pytest.raises(Killed):
            train(config, show=False)

    ledger = train(replace(config, accumulate=2), show=False)

    assert (ledger.config["accumulate"], len(ledger.rows), ledger.run["resumed"]) == (2, 2, [])


def test_a_finished_run_goes_on_for_more_epochs(config):
    train(replace(config, schedule="constant"), show=False)

    ledger = train(replace(config, schedule="constant", epochs=3), show=False)

    assert ledger.history["epoch"].tolist() == [1, 2, 3]
    assert (ledger.finished, ledger.config["epochs"], len(ledger.run["resumed"])) == (True, 3, 1)


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        (learner, "mutation_loss", 6),  # in the second epoch
        (engine, "validate", 2),
        (checkpoint, "save_state", 2),  # the best weights are written, the state isn't
        (checkpoint, "save_checkpoint", 2),
        (checkpoint, "save_checkpoint", 3),
        (engine.Ledger, "record", 2),  # the state is written, the history isn't
        (engine.Ledger, "finish", 1),
        (learner, "mutation_loss", 1),
        (engine.Ledger, "write_run", 1),
    ],
)
def test_a_run_that_dies_anywhere_goes_on_to_the_same_history(module, function, call, config, undisturbed, monkeypatch):
    config = replace(config, epochs=3)
    with monkeypatch.context() as patch:
        kill_at(patch, module, function, call)
        with pytest.raises(Killed):
            train(config, show=False)

    ledger = train(config, show=False)

    assert_same_history(ledger, undisturbed)
    assert_same_history(read_ledger(config.folder), undisturbed)
    for file in ("best.safetensors", "last.safetensors"):
        weights, expected = (load_weights(folder / file).state_dict() for folder in (config.folder, undisturbed.folder))
        assert all(torch.allclose(weights[key], tensor, atol=1e-6) for key, tensor in expected.items())


def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_to_the_same_history(config, undisturbed):
    command = [sys.executable, "-m", "emcad_lib.train", "--cache", str(config.cache), "--runs", str(config.runs)]
    command += "--name run --batch-size 4 --epochs 3 --slices-per-epoch 16 --image-size 32".split()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    history = config.folder / "history.csv"
    while not (history.exists() and len(history.read_text().splitlines()) == 2):  # until one epoch is recorded
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not read_ledger(config.folder).finished

    ledger = train(replace(config, epochs=3), show=False)

    assert_same_history(ledger, undisturbed)


@pytest.mark.parametrize("had_begun", [True, False])
def test_the_half_written_files_of_a_killed_process_are_swept_up(config, had_begun):
    config.folder.mkdir(parents=True)
    if had_begun:
        train(config, show=False)
    leftover = config.folder / ".writing-123-last_state.pt"
    leftover.write_bytes(b"half")

    train(replace(config, epochs=3), show=False)

    assert not leftover.exists()


def test_resuming_with_other_settings_names_those_that_differ(config):
    train(config, show=False)

    with pytest.raises(CourseError) as error:
        train(replace(config, learning_rate=0.5, seed=1, epochs=9), show=False)

    assert "learning_rate was 0.001, is now 0.5" in str(error.value)
    assert "seed was 0, is now 1" in str(error.value)
    assert "epochs" not in str(error.value)


def test_resuming_on_other_data_is_refused_and_on_a_moved_cache_is_not(config, tmp_path):
    train(config, show=False)
    moved = tmp_path / "moved"
    moved.symlink_to(config.cache)
    train(replace(config, cache=moved), show=False)

    other = tmp_path / "other"
    other.mkdir()
    (other / "patients").symlink_to(config.cache / "patients")
    manifest = read_json(config.cache / "manifest.json")
    write_json(other / "manifest.json", manifest | {"split_seed": 99})

    with pytest.raises(CourseError, match="other holds other data"):
        train(replace(config, cache=other), show=False)


def test_a_state_that_could_run_code_is_not_loaded(config, tmp_path):
    train(config, show=False)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"epoch": Trap()}, config.folder / "last_state.pt")

    with pytest.raises(CourseError, match=r"last_state.pt: the state of this run can't be read"):
        train(replace(config, epochs=3), show=False)
    assert not (tmp_path / "trapped").exists()


# What stops a run


def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on_later(config, undisturbed, monkeypatch):
    config = replace(config, epochs=3)
    save, calls = torch.save, []

    def full_at_the_second_state(state, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"the first bytes")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", full_at_the_second_state)
        with pytest.raises(CourseError, match=r"last_state.pt: the disk is full"):
            train(config, show=False)

    assert checkpoint.load_state(config.folder)["epoch"] == 1
    assert load_weights(config.folder / "last.safetensors").metadata["epoch"] == "1"
    assert not list(config.folder.glob(".*"))
    assert_same_history(train(config, show=False), undisturbed)


def test_a_disk_that_is_full_for_the_weights_leaves_the_last_checkpoint(config, undisturbed, monkeypatch):
    config = replace(config, epochs=3)
    write, calls = Path.write_bytes, []

    def full_at_the_third_file(path, content):
        calls.append(path)
        if len(calls) == 3:  # the first epoch writes two: its weights are the best and the last
            write(path, content[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_at_the_third_file)
        with pytest.raises(CourseError, match=r"safetensors: the disk is full"):
            train(config, show=False)

    assert load_weights(config.folder / "best.safetensors").metadata["epoch"] == "1"
    assert not list(config.folder.glob(".*"))
    assert_same_history(train(config, show=False), undisturbed)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_slices(config):
    exploding = replace(config, learning_rate=1e20, schedule="constant")
    data = SliceDataset(Cache(config.cache), "train", 32)
    sampler = EpochSampler(len(data), 16, seed=0)
    sampler.set_epoch(1)
    second_batch = list(sampler)[4:8]

    with pytest.raises(CourseError, match="Epoch 1, batch 2: the loss is nan") as error:
        train(exploding, show=False)

    for number in second_batch:
        patient, _, index = data.where(number)
        places = str(error.value).split(patient)[1].split(";")[0].split(".")[0]
        assert str(index) in places.replace(",", "").split()


def test_a_precision_that_the_machine_does_not_have_is_named(config, monkeypatch):
    def refuse(mixed_precision, cpu):
        raise ValueError("fp16 mixed precision requires a GPU")

    monkeypatch.setattr(learner, "Accelerator", refuse)

    with pytest.raises(
        CourseError, match="--mixed-precision fp16 does not work on this machine: .* requires a GPU. Take"
    ):
        train(replace(config, mixed_precision="fp16"), show=False)


def test_fp16_without_a_gpu_is_refused_and_not_ignored(config, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    with pytest.raises(CourseError, match="fp16 needs a GPU"):
        train(replace(config, mixed_precision="fp16"), show=False)

    assert not config.folder.exists()


def test_the_precision_is_the_runs_own_and_not_that_of_the_run_before(config):
    precisions = [
        prepare_run(replace(config, mixed_precision=precision)).accelerator.mixed_precision
        for precision in ("bf16", "no", "bf16")
    ]

    assert precisions == ["bf16", "no", "bf16"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_named(split, config, tmp_path):
    manifest = read_json(config.cache / "manifest.json")
    for entry in manifest["patients"].values():
        entry["split"] = "test" if entry["split"] == split else entry["split"]
    write_json(tmp_path / "cache" / "manifest.json", manifest)

    with pytest.raises(CourseError, match=f"no patient of this cache is in the split '{split}'"):
        train(replace(config, cache=tmp_path / "cache"), show=False)


def test_an_encoder_that_nobody_knows_leaves_no_folder_behind(config):
    with pytest.raises(CourseError, match="no encoder 'pvt_v9'"):
        train(replace(config, encoder="pvt_v9"), show=False)

    assert not config.folder.exists()


def test_fewer_validation_patients_can_be_asked_for(tiny_patients, tmp_path, config):
    tiny_patients(tmp_path / "patients", 12)
    preprocess(tmp_path / "patients", tmp_path / "cache", workers=1)

    ledger = train(replace(config, cache=tmp_path / "cache", epochs=1, validate_patients=1), show=False)

    assert ledger.run["data"]["val"] == Cache(tmp_path / "cache").names("val")[:1]


def test_a_run_in_two_planes_trains_on_both_validates_in_the_first_and_says_so_in_its_weights(config):
    planes = ("coronal", "axial")
    run = prepare_run(replace(config, planes=planes))
    axial = prepare_run(config)

    cache = Cache(config.cache)
    heights = {name: cache.regions(name).shape[1] for name in cache.names()}
    assert len(run.train_slices) == len(axial.train_slices) + sum(heights[name] for name in cache.names("train"))
    assert len(run.val_slices) == sum(heights[name] for name in cache.names("val"))
    ledger = train(replace(config, planes=planes, epochs=1), show=False)
    assert load_weights(ledger.folder / "last.safetensors").metadata["planes"] == '["coronal", "axial"]'


def test_slices_are_described_plane_by_plane(config):
    slices = prepare_run(replace(config, planes=("axial", "coronal"))).train_slices
    name = slices.slices.patients[0]
    axial = len(Cache(config.cache).regions(name))

    described = slices.describe([5, axial + 4, 9, axial + 3])

    assert described == f"{name} slices 5, 9; {name} coronal slices 3, 4"


def test_a_run_from_before_the_optimisers_one_call_for_all_weights_goes_on_with_it(config):
    train(replace(config, epochs=1), show=False)
    state = checkpoint.load_state(config.folder)
    del state["optimizer"]["param_groups"][0]["fused"]
    run = prepare_run(config)

    checkpoint.restore(run, state)

    assert run.optimizer.param_groups[0]["fused"]
    assert run.optimizer.state[next(run.network.parameters())]["step"] == 4


def test_a_run_from_before_a_setting_existed_goes_on_with_its_default(config):
    train(replace(config, epochs=1), show=False)
    path = config.folder / "run.json"
    run = read_json(path)
    del run["config"]["planes"]
    write_json(path, run)

    assert len(train(config, show=False).rows) == 2
