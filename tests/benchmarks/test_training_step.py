"""How fast a step is: the recipe and the baseline train the same network on the same batch."""

import pandas as pd
import pytest
import torch

from emcad_lib.train.losses import mutation_loss


@pytest.fixture
def training_step(script):
    return script("training_step")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 64, 64, generator=generator)
    return x, (torch.rand(2, 1, 64, 64, generator=generator) < 0.1).float()


def test_the_baselines_loop_is_the_same_loss(training_step, batch):
    _, y = batch
    maps = [torch.randn(2, 1, 64, 64) for _ in range(4)]

    assert training_step.loop_over_subsets(maps, y).item() == pytest.approx(mutation_loss(maps, y).item(), rel=1e-5)


def test_recipe_and_baseline_go_down_the_same_losses(training_step, batch):
    courses = []
    for step in (training_step.build_plain_step("pvt_v2_b0"), training_step.build_step("pvt_v2_b0", 64, 2)):
        losses = []
        for _ in range(6):
            torch.manual_seed(0)  # the same random branches are left out each time
            losses.append(step(*batch))
        courses.append(losses)

    plain, recipe = courses
    assert recipe == pytest.approx(plain, rel=5e-3)
    assert plain[-1] < 0.9 * plain[0]  # each step is an update


def test_the_table_has_a_row_for_each_way_beside_the_baseline(training_step, tmp_path):
    out = tmp_path / "table.csv"

    code = training_step.main(["--image-size", "32", "--batch-size", "3", "--repeats", "1", "--out", str(out)])

    assert code == 0
    table = pd.read_csv(out).set_index("way")
    assert list(table.index) == [
        training_step.PLAIN, "+ loss in one pass", "+ AdamW fused", training_step.RECIPE, "recipe in bf16",
    ]  # fmt: skip
    assert table.loc[training_step.PLAIN, ["times_as_fast", "loss_differs"]].tolist() == [1, 0]
    assert table["images_per_second"].to_numpy() == pytest.approx(3 / table["seconds"].to_numpy(), rel=1e-3)
    assert (table["loss_differs"] < 0.02).all()


def test_an_encoder_that_nobody_knows_is_refused_in_a_sentence(training_step, capsys):
    assert training_step.main(["--encoder", "pvt_v9"]) == 1
    assert "timm knows no encoder" in capsys.readouterr().err
