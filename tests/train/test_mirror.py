"""The copy of a run in another place."""

import errno
import shutil
import warnings
from dataclasses import replace

import pandas as pd
import pytest
import torch

from emcad_lib.files import CourseError, read_json, write_json
from emcad_lib.model.weights import load_weights
from emcad_lib.train import mirror as mirror_module
from emcad_lib.train.checkpoint import load_state
from emcad_lib.train.config import TrainConfig
from emcad_lib.train.engine import train
from emcad_lib.train.ledger import is_run, read_ledger

RUN_FILES = {"run.json", "history.csv", "best.safetensors", "last.safetensors", "last_state.pt"}
TIMES = ["seconds", "images_per_second"]
SETTINGS = {"batch_size": 4, "epochs": 2, "slices_per_epoch": 8, "image_size": 32, "schedule": "constant"}


@pytest.fixture
def config(tiny_cache, tmp_path):
    """A run of two short epochs with a mirror."""
    return TrainConfig(tiny_cache, tmp_path / "runs", "run", mirror=str(tmp_path / "drive"), **SETTINGS)


class Vanished(BaseException):
    """Stands for the end of the machine: nothing catches it."""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def numbers(ledger):
    return ledger.history.drop(columns=TIMES)


def break_off_at(monkeypatch, copy):
    """Let the machine vanish in the middle of a copy of a file, counted from 1."""
    write, calls = shutil.copyfile, []

    def dying(source, target):
        calls.append(source)
        if len(calls) == copy:
            target.write_bytes(source.read_bytes()[:100])
            raise Vanished
        return write(source, target)

    monkeypatch.setattr(mirror_module.shutil, "copyfile", dying)


def test_the_mirror_holds_the_finished_run(config, tmp_path):
    train(config, show=False)

    mirrored = contents(tmp_path / "drive" / "run")
    assert mirrored.keys() == RUN_FILES
    assert mirrored == contents(config.folder)


def test_after_each_epoch_the_mirror_holds_the_run_so_far(config, tmp_path, monkeypatch):
    update, epochs = mirror_module.Mirror.update, []

    def watched(self):
        update(self)
        epochs.append((load_state(tmp_path / "drive" / "run")["epoch"], len(read_ledger(tmp_path / "drive/run").rows)))

    monkeypatch.setattr(mirror_module.Mirror, "update", watched)

    train(config, show=False)

    assert epochs == [(1, 1), (2, 2), (2, 2)]


def test_without_a_mirror_nothing_is_copied(config, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror_module.shutil, "copyfile", None)

    train(replace(config, mirror="", epochs=1), show=False)

    assert not (tmp_path / "drive").exists()


def test_a_run_whose_folder_has_vanished_comes_back_from_the_mirror_and_goes_on(config):
    whole = train(replace(config, name="whole", mirror=""), show=False)
    train(replace(config, epochs=1), show=False)
    shutil.rmtree(config.runs)

    ledger = train(config, show=False)

    pd.testing.assert_frame_equal(numbers(ledger), numbers(whole), rtol=0, atol=1e-6)
    assert len(ledger.run["resumed"]) == 1


@pytest.fixture(scope="module")
def snapshots(tiny_cache, tmp_path_factory):
    """The run's folder after its first epoch, after its second, and when it had finished."""
    home, folders = tmp_path_factory.mktemp("snapshots"), []

    def keep(self):
        folders.append(shutil.copytree(self.run, home / f"{len(folders)}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror_module.Mirror, "update", keep)
        train(TrainConfig(tiny_cache, home / "runs", "run", **SETTINGS), show=False)
    return folders


@pytest.mark.parametrize("copy", range(1, 6))
@pytest.mark.parametrize("stage", range(3))
def test_a_mirror_that_breaks_off_at_any_file_is_a_run_that_can_go_on(stage, copy, config, snapshots, monkeypatch):
    shutil.copytree(snapshots[stage], config.folder)
    if stage:
        shutil.copytree(snapshots[stage - 1], f"{config.mirror}/run")
    with monkeypatch.context() as patch:
        break_off_at(patch, copy)
        with pytest.raises(Vanished):
            mirror_module.Mirror(config).update()
    shutil.rmtree(config.folder)

    ledger = train(config, show=False)

    pd.testing.assert_frame_equal(numbers(ledger), numbers(read_ledger(snapshots[-1])), rtol=0, atol=1e-6)
    for file in ("best.safetensors", "last.safetensors"):
        found, expected = (load_weights(folder / file).state_dict() for folder in (config.folder, snapshots[-1]))
        assert all(torch.allclose(found[key], tensor, atol=1e-6) for key, tensor in expected.items())


def test_a_copy_back_that_breaks_off_is_begun_again(config, monkeypatch):
    train(config, show=False)
    shutil.rmtree(config.folder)
    with monkeypatch.context() as patch:
        break_off_at(patch, 4)
        with pytest.raises(Vanished):
            train(config, show=False)
    assert not is_run(config.folder)

    assert train(config, show=False).finished


def test_a_full_mirror_is_warned_of_once_tried_again_and_never_stops_the_training(config, tmp_path, monkeypatch):
    copy, calls = shutil.copyfile, []

    def full_until_the_end(source, target):
        calls.append(source)
        if len(calls) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy(source, target)

    monkeypatch.setattr(mirror_module.shutil, "copyfile", full_until_the_end)

    with pytest.warns(UserWarning, match="could not be copied to .*run.*the disk is full.*training goes on") as caught:
        assert train(config, show=False).finished

    assert len([warning for warning in caught if "could not be copied" in str(warning.message)]) == 1
    assert contents(tmp_path / "drive" / "run") == contents(config.folder)


def test_a_mirror_that_cannot_be_read_is_named_with_what_to_do(config, snapshots, monkeypatch):
    shutil.copytree(snapshots[0], f"{config.mirror}/run")

    def unreadable(source, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(mirror_module.shutil, "copyfile", unreadable)

    with pytest.raises(CourseError, match="drive/run: .*could not be copied back .*Check that the drive is there"):
        train(config, show=False)


def test_a_drive_that_is_not_mounted_is_warned_of_and_not_made_up_on_this_disk(config, tmp_path):
    with pytest.warns(
        UserWarning, match="could not be copied .*Check that --mirror names a folder that can be written"
    ):
        train(replace(config, epochs=1, mirror=str(tmp_path / "content" / "drive" / "runs")), show=False)

    assert not (tmp_path / "content").exists()


def test_a_finished_run_whose_mirror_lacks_the_end_is_copied_when_it_is_asked_for_again(config, tmp_path):
    train(replace(config, mirror=""), show=False)

    train(config, show=False)

    assert contents(tmp_path / "drive" / "run") == contents(config.folder)


def test_another_run_of_that_name_in_the_mirror_is_never_overwritten(config, tmp_path):
    train(replace(config, epochs=1), show=False)
    before = contents(tmp_path / "drive" / "run")
    run = read_json(config.folder / "run.json")
    write_json(config.folder / "run.json", run | {"started": "2020-01-01T00:00:00+00:00"})

    with pytest.raises(CourseError, match="the mirror holds another run of this name"):
        train(config, show=False)
    shutil.rmtree(config.folder)
    with pytest.raises(CourseError, match="there is a run of this name in the mirror"):
        train(replace(config, resume=False), show=False)
    with pytest.raises(CourseError, match="seed was 0, is now 1"):
        train(replace(config, seed=1), show=False)

    assert contents(tmp_path / "drive" / "run") == before


def test_the_half_written_files_of_a_killed_copy_are_swept_up(config, tmp_path):
    train(replace(config, epochs=1), show=False)
    leftover = tmp_path / "drive" / "run" / ".writing-123-last_state.pt"
    leftover.write_bytes(b"half")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(config, show=False)

    assert not leftover.exists()
