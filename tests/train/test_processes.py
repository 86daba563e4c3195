"""Several processes that train together, as torchrun starts them: two on this machine's processors.

With batch normalisation frozen, and no branch left out at random, they compute what one process computes, but for the
order in which 32-bit numbers are added up: losses agree to about 1e-6 of their size. So histories are compared to
1e-5, and Dice to two pixels of the validation patient, where a logit may lie on either side of 0.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from emcad_lib.files import CourseError
from emcad_lib.model.weights import load_weights, save_weights
from emcad_lib.train import learner
from emcad_lib.train.checkpoint import load_state
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train, validate
from emcad_lib.train.learner import build_model
from emcad_lib.train.ledger import HISTORY, is_run, read_ledger
from emcad_lib.train.processes import from_main, together
from emcad_lib.train.run import prepare_run

TIMEOUT = 300  # seconds; processes that wait for each other forever fail here
EPOCHS = 2
SETTINGS = {
    "batch_size": 10,
    "accumulate": 5,  # in two processes one slice at a time, and none for one of them in the last batch, of three
    "epochs": EPOCHS,
    "slices_per_epoch": 13,
    "image_size": 32,
    "learning_rate": 3e-5,  # AdamW divides by gradients, some of which are nothing but rounding
    "schedule": "constant",
    "drop_path": 0.0,
    "freeze_norm": True,
}
RUN_FILES = {"run.json", "history.csv", "best.safetensors", "last.safetensors", "last_state.pt"}


def start(*command):
    """Start torchrun, which starts two processes."""
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*starter, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def launch(*command):
    """Start two processes, and return the end of both: exit code, standard output and error."""
    return end_of(start(*command))


def end_of(process):
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        raise
    return process.returncode, out, err


DRIVER = '''
"""Runs the command with one thing after the other going wrong, and writes what each process said."""

import contextlib, errno, io, json, os, sys
import torch
from emcad_lib.train import __main__ as command, checkpoint, learner, run

run.VALIDATION_BATCH = 5  # so that each process validates a part
cases, arguments, out = sys.argv[1].split(","), sys.argv[3:], sys.argv[2]
rank = int(os.environ["RANK"])
loss, save, said = learner.mutation_loss, torch.save, {}


def no_number(maps, target):
    return loss(maps, target) * float("nan" if rank == 1 else "1")


def too_much(maps, target):
    if rank == 1:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return loss(maps, target)


def full(state, path):
    raise OSError(errno.ENOSPC, "No space left on device")


for case in cases:
    learner.mutation_loss, checkpoint.torch.save = loss, save
    more = ["--name", case]
    if case == "nan":
        learner.mutation_loss = no_number
    if case == "memory":
        learner.mutation_loss = too_much
    if case == "full":
        checkpoint.torch.save = full
    if case == "settings":
        more += ["--batch-size", "0"]
    if case == "encoder":
        more += ["--encoder", "pvt_v9"]
    if case == "thawed":
        more += ["--accumulate", "1", "--no-freeze-norm"]
    if case == "taken":
        more = ["--name", "first", "--no-resume"]
    with contextlib.redirect_stderr(io.StringIO()) as error, contextlib.redirect_stdout(io.StringIO()):
        code = command.main([*arguments, *more])
    said[case] = code, error.getvalue()
    with open(f"{out}-{rank}.json", "w") as file:
        json.dump(said, file)
sys.exit(code)
'''


def drive(cases, config, tmp_path):
    """For each process, case by case, its exit code and what it said."""
    (tmp_path / "driver.py").write_text(DRIVER)
    launch(tmp_path / "driver.py", ",".join(cases), tmp_path / "said", *arguments(config))
    return [json.loads(path.read_text()) for path in sorted(tmp_path.glob("said-*.json"))]


def arguments(config):
    line = ["--cache", config.cache, "--runs", config.runs, "--name", config.name, "--no-pretrained"]
    for name, value in SETTINGS.items():
        flag = "--" + name.replace("_", "-")
        line += [flag] if value is True else [flag, getattr(config, name)]
    return [str(word) for word in line]


def assert_same_run(ledger, expected):
    ours, theirs = ledger.history, expected.history
    for column in HISTORY.keys() - {"seconds", "images_per_second"}:
        tolerance = {"rtol": 0, "atol": 2e-3} if column.startswith("dice") else {"rtol": 1e-5}
        np.testing.assert_allclose(ours[column], theirs[column], err_msg=column, **tolerance)
    found, wanted = (load_weights(run.folder / "last.safetensors").state_dict() for run in (ledger, expected))
    assert max((found[key].float() - tensor.float()).abs().max() for key, tensor in wanted.items()) < 1e-5
    # AdamW makes the same steps of gradients that are all twice as large. Its running means of them tell.
    found, wanted = (gradients(run.folder) for run in (ledger, expected))
    assert (found - wanted).norm() < 1e-4 * wanted.norm()


def gradients(folder):
    moments = load_state(folder)["optimizer"]["state"].values()
    return torch.cat([moment["exp_avg"].flatten() for moment in moments])


@pytest.fixture(scope="module")
def alone(tiny_cache, tmp_path_factory):
    """Two epochs in one process, and the first one of them as a run of its own."""
    runs = tmp_path_factory.mktemp("alone")
    whole = train(TrainConfig(tiny_cache, runs, "whole", **SETTINGS), show=False)
    first = train(TrainConfig(tiny_cache, runs, "first", **SETTINGS | {"epochs": 1}), show=False)
    return SimpleNamespace(whole=whole, first=first, cache=tiny_cache, runs=runs)


def test_two_processes_compute_what_one_does_write_once_and_one_goes_on_with_their_run(alone, tiny_cache, tmp_path):
    config = TrainConfig(tiny_cache, tmp_path, "two", **SETTINGS | {"epochs": 1})

    code, out, err = launch("-m", "emcad_lib.train", *arguments(config))

    assert code == 0, err
    assert out.count("Best epoch: 1 of 1") == 1
    assert out.count(f"Run: {config.folder}") == 1
    assert {path.name for path in config.folder.iterdir()} == RUN_FILES
    ledger = read_ledger(config.folder)
    assert ledger.run["machine"]["processes"] == 2
    assert_same_run(ledger, alone.first)
    weights = load_weights(config.folder / "best.safetensors").state_dict()
    assert weights.keys() == build_model(config).state_dict().keys()  # nothing of accelerate's wrapping in the names

    resumed = train(replace(config, epochs=EPOCHS), show=False)

    assert (resumed.run["machine"]["processes"], resumed.run["resumed"][0]["machine"]["processes"]) == (2, 1)
    assert_same_run(resumed, alone.whole)


def test_two_processes_go_on_with_the_run_of_one(alone, tmp_path):
    config = TrainConfig(alone.cache, alone.runs, "first", **SETTINGS)

    processes = drive(["first"], config, tmp_path)

    assert [process["first"] for process in processes] == [[0, ""]] * 2
    assert_same_run(read_ledger(config.folder), alone.whole)


def test_two_processes_that_are_killed_leave_a_run_that_goes_on(alone, tmp_path):
    config = TrainConfig(alone.cache, tmp_path, "killed", **SETTINGS)
    an_epoch = alone.whole.run["seconds"] / EPOCHS
    # In the first epoch, and in the second or at its end; one of them, by chance, and both.
    for epochs_done, victims in enumerate(secrets.choice([(1, 2), (2, 1)])):
        process = start("-m", "emcad_lib.train", *arguments(config))
        while process.poll() is None and not (is_run(config.folder) and count_epochs(config.folder) >= epochs_done):
            time.sleep(0.005)
        time.sleep(secrets.randbelow(1000) / 1000 * an_epoch / 2)
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        for victim in workers[-victims:]:
            victim.kill()
        assert end_of(process)[0] != 0
        assert not list(leftover for leftover in config.folder.glob("[!.]*") if leftover.name not in RUN_FILES)
        state = load_state(config.folder)
        assert 0 <= (state["epoch"] if state else 0) - count_epochs(config.folder) <= 1

    code, _, err = launch("-m", "emcad_lib.train", *arguments(config))

    assert code == 0, err
    assert {path.name for path in config.folder.iterdir()} == RUN_FILES
    assert_same_run(read_ledger(config.folder), alone.whole)


def count_epochs(folder):
    return len(read_ledger(folder).rows)


def test_what_goes_wrong_ends_all_processes_and_is_said_once(alone, tmp_path):
    config = TrainConfig(alone.cache, alone.runs, "wrong", **SETTINGS)
    cases = {
        "settings": "--batch-size must be 1 or more",
        "encoder": "no encoder 'pvt_v9'",
        "taken": "there is a run of this name already",
        "nan": "Epoch 1, batch 1: the loss is nan",
        "full": "the disk is full",
    }

    processes = drive([*cases, "thawed"], config, tmp_path)

    assert len(processes) == 2
    for case, complaint in cases.items():
        codes, texts = zip(*(process[case] for process in processes), strict=True)
        assert codes == (1, 1), case
        assert complaint in texts[0], case
        assert texts[1] == "", case
    with np.load(config.runs / "nan" / "not_finite.npz") as batch:
        assert len(batch["x"]) == 10  # the whole batch, of both processes
    assert [process["thawed"][0] for process in processes] == [0, 0]
    # Each process' normalisation has averages of its own on processors. Validation is by those that are kept.
    folder = config.runs / "thawed"
    run = prepare_run(replace(config, name="again", weights=str(folder / "last.safetensors")))
    row, scores = read_ledger(folder).rows[-1], validate(run)
    assert scores["val_loss"] == pytest.approx(row["val_loss"], rel=1e-6)
    for name in scores:  # a pixel may flip
        assert row[name] == pytest.approx(scores[name], rel=1e-3), name


def test_a_process_that_runs_out_of_memory_says_so_and_the_other_does_not_wait_forever(alone, tmp_path):
    config = TrainConfig(alone.cache, tmp_path, "wrong", **SETTINGS | {"accumulate": 1})

    (said,) = drive(["memory"], config, tmp_path)  # the other process was ended by torchrun

    assert said["memory"][0] == 1
    assert "with 5 slices of 32 pixels at once. The same command with --accumulate 3 takes 2" in said["memory"][1]


def test_a_single_process_is_the_main_one_and_its_errors_are_its_own():
    assert from_main(lambda: 3) == 3
    with pytest.raises(CourseError, match="mine"), together():
        raise CourseError("mine")


def test_on_gpus_batch_normalisation_looks_at_the_slices_of_all_processes_and_weights_keep_their_names(
    tiny_cache, tmp_path, monkeypatch
):
    """No GPU is needed to see which network would be trained."""
    config = TrainConfig(tiny_cache, tmp_path, "run", **SETTINGS | {"freeze_norm": False, "accumulate": 1})
    two_gpus = SimpleNamespace(
        num_processes=2, device=torch.device("cuda"), prepare=lambda *parts: parts, unwrap_model=lambda model: model
    )
    monkeypatch.setattr(learner, "start_accelerator", lambda config: two_gpus)

    def norms(network):
        return {
            type(module) for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        }

    network = prepare_run(config).network

    assert norms(network) == {torch.nn.SyncBatchNorm}
    assert norms(prepare_run(replace(config, freeze_norm=True)).network) == {torch.nn.BatchNorm2d}
    save_weights(network, tmp_path / "weights.safetensors")
    assert norms(load_weights(tmp_path / "weights.safetensors")) == {torch.nn.BatchNorm2d}
