"""What a network takes for a patient: the baseline resamples and comes back, and all ways get their row."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn


@pytest.fixture
def benchmark_script(script):
    return script("inference")


class Flair(nn.Module):
    """Where FLAIR is bright, there is tumour. It remembers the shapes that it was shown."""

    metadata = {"modalities": '["flair", "t1ce", "t2"]'}

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return [x[:, :1] - 1]


def test_the_usual_way_shows_every_slice_alone_at_224_and_brings_the_mask_back(benchmark_script):
    images = np.zeros((4, 60, 48, 3), dtype=np.float32)
    images[0, 20:40, 8:28, 1] = 3
    model = Flair()

    found = benchmark_script.usual(model, images)

    assert model.shapes == [(1, 3, 224, 224)] * 3
    assert found.shape == (60, 48, 3)
    assert not found[..., [0, 2]].any()
    assert np.count_nonzero(found[..., 1] != (images[0, ..., 1] > 0)) < 80  # its edge has 76 pixels


def test_every_way_has_a_row_and_the_speed_costs_no_dice(benchmark_script, tiny_patients, tmp_path):
    (patient,) = tiny_patients(tmp_path, patients=1)
    out = tmp_path / "table.csv"

    assert benchmark_script.main([str(patient), "--repeats", "1", "--out", str(out)]) == 0

    table = pd.read_csv(out, index_col="way")
    assert list(table.index) == ["usual", "ours", "ours at 224"]
    assert table.loc["usual", "times as fast by seconds"] == 1
    assert (table.loc["ours":, "dice"] > 0.995).all()
    assert table["threads"].unique().tolist() == [torch.get_num_threads()]


def test_no_patient_is_refused_in_a_sentence(benchmark_script, tmp_path, capsys):
    assert benchmark_script.main([str(tmp_path / "nobody")]) == 1
    assert "nobody" in capsys.readouterr().err
