"""What notebook 12 says in words of phantoms without one ingredient is what was recorded."""

from pathlib import Path

import pandas as pd

RECORDED = Path(__file__).parents[2] / "figures" / "recorded"


def test_what_the_lesson_says_in_words_is_what_was_recorded():
    table = pd.read_csv(RECORDED / "phantom_ablation.csv")
    rows = table.pivot(index=["phantom_version", "seed"], columns="left_out", values="dice")
    missed = rows.drop(columns="nothing").sub(rows["nothing"], axis=0)  # below 0: worse without it

    # The first training: every ingredient is missed, the shapes most.
    assert (missed.iloc[0] < 0).all()
    assert missed.iloc[0].idxmin() == "shapes"
    # Fourth of eight then, and sixth.
    assert (rows.iloc[1:].rank(axis=1, ascending=False)["nothing"] == [4, 6]).all()
    # The shapes: by much, a little, and not at all. Three times below: the softness only, twice by next to nothing.
    first, second, third = missed["shapes"]
    assert first < -0.05 < second < -0.01 < 0 <= third
    assert missed.columns[(missed < 0).all()].tolist() == ["softness"]
    assert (missed["softness"].iloc[1:] > -0.005).all()


def test_what_the_model_card_says_of_the_two_files_is_what_was_recorded():
    """For the whole tumour: one is better by the mean, the other by the median, and two patients decide the mean."""
    whole = pd.read_csv(RECORDED / "reference_weights_real_patients.csv").set_index("patient")["dice"]
    regions = pd.read_csv(RECORDED / "regions_real_patients.csv").set_index(["region", "patient"]).loc["whole", "dice"]
    behind = (whole - regions).sort_values()

    assert whole.mean() > regions.mean()
    assert whole.median() < regions.median()
    assert behind.iloc[:-2].mean() < 0 < behind.mean()
