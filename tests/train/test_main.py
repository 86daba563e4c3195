"""python -m emcad_lib.train"""

import pytest

from emcad_lib.train import __main__ as command
from emcad_lib.train.ledger import read_ledger


def arguments(cache, runs, *more):
    sizes = "--name first --batch-size 4 --epochs 1 --slices-per-epoch 8 --image-size 32".split()
    return ["--cache", str(cache), "--runs", str(runs), *sizes, *more]


def test_the_command_trains_and_says_how_good_the_best_epoch_is_and_where_the_run_lies(tiny_cache, tmp_path, capsys):
    code = command.main(arguments(tiny_cache, tmp_path))

    said = capsys.readouterr().out
    assert code == 0
    assert read_ledger(tmp_path / "first").finished
    assert "epoch 1/1" in said  # the progress bar
    assert "Best epoch: 1 of 1, Dice per patient 0." in said
    assert str(tmp_path / "first") in said


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--batch-size", "0"], "--batch-size must be 1 or more, not 0."),
        (["--name", "a/b"], "--name must be letters"),
        (["--cache", "/nowhere"], "there is no cache"),
        (["--encoder", "pvt_v9"], "no encoder 'pvt_v9'"),
        (
            ["--weights", "/nowhere/w.safetensors"],
            "w.safetensors: there is no such file of weights. Give --weights the path",
        ),
        (
            ["--encoder-weights", "/nowhere/e.pth"],
            "e.pth: there is no such file of weights. Give --encoder-weights the",
        ),
        (
            ["--modalities", "flair,t2"],
            "--modalities must be one or more of flair, t1, t1ce, t2, each once and as a word",
        ),
        (["--mixed-precision", "fp32"], "--mixed-precision must be no or fp16 or bf16, not 'fp32'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_the_command_fails(more, complaint, tiny_cache, tmp_path, capsys):
    code = command.main(arguments(tiny_cache, tmp_path, *more))

    said = capsys.readouterr().err
    assert code == 1
    assert complaint in said
    assert "Traceback" not in said
    assert not (tmp_path / "first").exists()


def test_runs_below_a_file_are_refused_before_the_work(tiny_cache, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")

    assert command.main(arguments(tiny_cache, tmp_path / "mine")) == 1

    assert f"{tmp_path / 'mine'} is a file and no folder. Give --runs another place." in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    ("more", "said"),
    [([], "The same command goes on"), (["--no-resume"], "The same command with --resume goes on")],
)
def test_an_interruption_from_the_keyboard_says_how_to_go_on(more, said, tiny_cache, tmp_path, capsys, monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)

    code = command.main(arguments(tiny_cache, tmp_path, *more))

    assert code == 130
    assert said in capsys.readouterr().err
