"""What a learner has solved is kept for each notebook, and shown for all."""

import pytest

from emcad_lib.lesson import begin
from emcad_lib.solved import keep, overview

COURSE = ["00_start_here", "01_explore_brats", "04_channel_and_spatial_attention"]


def test_each_notebook_has_a_line_and_each_exercise_a_dot(tmp_path):
    keep(tmp_path, "00_start_here", ["Right! As large as an egg.", "Not answered yet.", "Right!"])
    keep(tmp_path, "04_channel_and_spatial_attention", ["Not quite: Right is where the left is."])

    assert overview(tmp_path, COURSE, "04_channel_and_spatial_attention").splitlines() == [
        "00 start here                     ●○●   2 of 3",
        "01 explore brats                        not run yet",
        "04 channel and spatial attention  ○     0 of 1  <- you are here",
    ]


def test_what_counts_is_the_last_run(tmp_path):
    for said in ("Right!", "Not quite."):
        keep(tmp_path, "00_start_here", [said])

    assert "0 of 1" in overview(tmp_path, COURSE[:1], "")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"right": 3}', '"right"'])
def test_a_file_that_cannot_be_read_counts_as_not_run(tmp_path, content):
    (tmp_path / "00_start_here.json").write_text(content)

    assert "not run yet" in overview(tmp_path, COURSE[:1], "")


def test_a_lesson_prints_the_whole_course_and_remembers_beside_its_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMCAD_RUNS", str(tmp_path))
    begin("03_multi_scale_convolution", "ci").solved("Right!", "Not answered yet.")
    begin("11_what_a_dice_score_means", "quick").solved("Right!")

    lines = capsys.readouterr().out.splitlines()[-14:]

    assert [line[:2] for line in lines] == [f"{number:02d}" for number in range(14)]
    assert lines[3].endswith("●○    1 of 2")
    assert lines[11].endswith("●     1 of 1  <- you are here")
