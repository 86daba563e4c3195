"""The settings of a run, from Python and from the command line."""

import dataclasses

import pytest

from emcad_lib.files import CourseError
from emcad_lib.profiles import PROFILES
from emcad_lib.train.config import TrainConfig, parse_arguments

NEEDED = ["--cache", "data/cache", "--runs", "runs", "--name", "first"]


def config(**settings):
    return TrainConfig(cache="data/cache", runs="runs", name="first", **settings)


def test_the_command_line_without_options_gives_the_defaults():
    assert parse_arguments(NEEDED) == config()


def test_every_setting_can_be_given_on_the_command_line():
    line = """--encoder pvt_v2_b2 --variant no-sab --batch-size 25 --epochs 9 --seed 3 --image-size 224
        --slices-per-epoch 100
        --learning-rate 1e-4 --schedule constant --weight-decay 0.01 --modalities flair t2 --regions whole core
        --planes axial coronal --pretrained --encoder-weights b2.pth --weights old.safetensors --drop-path 0.2
        --no-augment --mixed-precision bf16 --validate-patients 7 --no-resume --accumulate 5 --freeze-norm
        --mirror drive/runs --network emcad --warm-up 0.1 --neighbours 2 --dropout 0.3 --average 0.9
        --variations flip elastic --boundary 5 --patience 4"""

    given = parse_arguments(NEEDED + line.split())

    expected = {
        "encoder": "pvt_v2_b2",
        "variant": "no-sab",
        "batch_size": 25,
        "epochs": 9,
        "seed": 3,
        "image_size": 224,
        "slices_per_epoch": 100,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "weight_decay": 0.01,
        "modalities": ("flair", "t2"),
        "regions": ("whole", "core"),
        "planes": ("axial", "coronal"),
        "pretrained": True,
        "encoder_weights": "b2.pth",
        "weights": "old.safetensors",
        "drop_path": 0.2,
        "augment": False,
        "mixed_precision": "bf16",
        "validate_patients": 7,
        "resume": False,
        "accumulate": 5,
        "freeze_norm": True,
        "mirror": "drive/runs",
        "network": "emcad",
        "warm_up": 0.1,
        "neighbours": 2,
        "dropout": 0.3,
        "average": 0.9,
        "variations": ("flip", "elastic"),
        "boundary": 5.0,
        "patience": 4,
    }
    assert given == config(**expected)
    assert expected.keys() | {"cache", "runs", "name"} == {setting.name for setting in dataclasses.fields(TrainConfig)}


def test_the_defaults_are_those_of_the_quick_profile():
    quick = PROFILES["quick"]

    for name in ("encoder", "image_size", "epochs", "learning_rate", "pretrained"):
        assert getattr(config(), name) == getattr(quick, name), name


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("batch_size", 0, "1 or more"),
        ("accumulate", 0, "1 or more"),
        ("epochs", 0, "1 or more"),
        ("seed", -1, "0 or more"),
        ("slices_per_epoch", -1, "0 or more"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("drop_path", 1.0, "below 1"),
        ("image_size", 100, "multiple of 32"),
        ("schedule", "stairs", "cosine or constant or plateau"),
        ("network", "vnet", "attention_unet"),
        ("warm_up", 1.0, "below 1"),
        ("dropout", -0.1, "at least 0"),
        ("average", 1.0, "below 1"),
        ("neighbours", -1, "0 or more"),
        ("patience", -1, "0 or more"),
        ("boundary", float("inf"), "0 or more"),
        ("variations", ("flip", "fog"), "elastic"),
        ("variant", "no-encoder", "no-cab, no-sab"),
        ("mixed_precision", "fp8", "bf16"),
        ("modalities", ("flair", "pet"), "t1ce"),
        ("modalities", (), "one or more"),
        ("modalities", ("t2", "t2"), "one or more"),
        ("regions", ("oedema",), "enhancing"),
    ],
)
def test_a_setting_that_cannot_be_right_is_named_with_what_is_wanted(name, value, wanted):
    with pytest.raises(CourseError, match=f"--{name.replace('_', '-')} must be .*{wanted}"):
        config(**{name: value})


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..", ".hidden", "-x", "a\nb"])
def test_a_name_that_is_no_plain_folder_name_is_refused(name):
    with pytest.raises(CourseError, match="--name must be letters"):
        TrainConfig(cache="data/cache", runs="runs", name=name)


def test_one_slice_of_32_pixels_is_refused_because_batch_normalisation_needs_two_numbers():
    with pytest.raises(CourseError, match="normalisation"):
        config(batch_size=1, image_size=32)

    assert config(batch_size=2, image_size=32).image_size == 32
    with pytest.raises(CourseError, match="normalisation"):
        config(batch_size=5, accumulate=3, image_size=32)  # 2, 2 and 1
    assert config(batch_size=5, accumulate=3, image_size=64).largest_part() == 2
    assert config(batch_size=1, image_size=32, freeze_norm=True).largest_part() == 1


def test_a_micro_batch_needs_a_slice_in_each_process():
    with pytest.raises(
        CourseError, match="--accumulate 5 needs a slice for each micro-batch, and --batch-size is 4. Take"
    ):
        config(batch_size=4, accumulate=5, image_size=64)
    with pytest.raises(CourseError, match="--accumulate 2 in each of 3 processes needs .* --batch-size is 4"):
        config(batch_size=4, accumulate=2, image_size=64).check_parts(processes=3)


def test_a_run_goes_on_by_default_and_is_told_not_to_by_no_resume():
    assert parse_arguments(NEEDED).resume
    assert parse_arguments([*NEEDED, "--resume"]).resume
    assert not parse_arguments([*NEEDED, "--no-resume"]).resume


def test_the_settings_for_the_ledger_hold_no_path():
    folders = {"cache": "/home/me/cache", "runs": "/home/me/runs", "mirror": "/home/me/drive"}
    settings = TrainConfig(**folders, name="x", weights="/home/me/w.safetensors")

    kept = settings.settings()

    assert (kept["cache"], kept["weights"], kept["encoder_weights"]) == ("cache", "w.safetensors", "")
    assert kept["regions"] == ["whole"]  # as JSON gives it back
    assert not {"runs", "resume", "mirror"} & kept.keys()
    assert "/home" not in str(kept)


@pytest.mark.parametrize(
    "settings",
    [{"pretrained": True}, {"encoder_weights": "b0.pth"}, {"variant": "no-sab"}, {"dropout": 0.2}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_only_emcad_has_is_refused_for_other_networks(settings):
    with pytest.raises(CourseError, match="left out with --network unet"):
        config(network="unet", **settings)
