"""What a notebook starts with: its profile, its patients, their cache, and a place for its figures."""

import importlib.metadata
import io
import os
import platform
import re
import types

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image as Picture

import emcad_lib.lesson
from emcad_lib.costs import COSTS_FILE, read_costs
from emcad_lib.data.slices import SliceDataset
from emcad_lib.files import CourseError, project_home, read_json, sha256
from emcad_lib.lesson import RECORDED, begin, versions
from emcad_lib.profiles import PROFILES
from emcad_lib.show import plots


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A course's folder of its own, and none of the environment's settings."""
    for name in ("EMCAD_PROFILE", "EMCAD_DATA_DIR", "EMCAD_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMCAD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # starting workers takes longer than tiny patients do
    return tmp_path / "home"


@pytest.fixture
def displayed(monkeypatch):
    """What the lesson displays, in a list."""
    shown = []
    monkeypatch.setattr(emcad_lib.lesson, "display", shown.append)
    return shown


@pytest.fixture(scope="module")
def six(tmp_path_factory, tiny_patients):
    """A folder of six tiny patients: one more than the profile ci uses."""
    folder = tmp_path_factory.mktemp("six")
    tiny_patients(folder, 6)
    return folder


# ---- Where the course is ---------------------------------------------------------------------------------------------


def test_the_environment_says_where_the_course_is(home):
    assert project_home() == home


def test_else_it_is_the_nearest_folder_above_that_holds_the_library(tmp_path, monkeypatch):
    monkeypatch.delenv("EMCAD_HOME")
    (tmp_path / "course" / "emcad_lib").mkdir(parents=True)
    (tmp_path / "course" / "notebooks" / "solutions").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "course" / "notebooks" / "solutions")

    assert project_home() == tmp_path / "course"


def test_else_it_is_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("EMCAD_HOME", "")
    monkeypatch.chdir(tmp_path)

    assert project_home() == tmp_path


def test_recorded_tables_come_with_the_course_wherever_the_readers_home_is(six):
    table = begin("11_x", "ci", str(six)).recorded("four_scores_real_patients")

    assert dict(zip(table["definition"], table["score"], strict=True))["patient"] == 0.722


def test_a_recorded_table_that_does_not_exist_is_named(six):
    with pytest.raises(CourseError, match=r"nothing\.csv: there is no such recorded table\. Check the name"):
        begin("11_x", "ci", str(six)).recorded("nothing")


# ---- Its settings ----------------------------------------------------------------------------------------------------


def test_a_lesson_begins_with_one_line_that_names_no_folder(six, tmp_path, capsys):
    begin("03_x", "ci", str(six))

    out = capsys.readouterr().out
    assert re.fullmatch(r"Profile ci: up to 5 patients of yours, 64 px\. .+, \d+\.\d GB of memory free\.\n", out)
    assert "/" not in out


def test_the_line_tells_the_processor_with_its_cores_and_the_memory_that_can_be_had(six, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=3.21e9))

    begin("03_x", "ci", str(six))

    assert " CPU with 1 core, 3.2 GB of memory free." in capsys.readouterr().out


def test_the_line_tells_a_gpu_by_its_name_and_the_gpus_own_memory(six, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (14.5e9, 15.8e9))

    begin("03_x", "ci", str(six))

    assert " Tesla T4, 14.5 GB of memory free." in capsys.readouterr().out


@pytest.mark.parametrize("profile", ["ci", "quick"])
def test_the_line_tells_what_the_notebook_costs_in_this_profile(six, capsys, profile):
    begin("12_segment_a_patient", profile, str(six))

    cost = read_costs(RECORDED / COSTS_FILE)["12_segment_a_patient", profile]
    assert capsys.readouterr().out.endswith(f" This notebook takes {cost.in_words}.\n")


def test_the_environment_says_where_runs_are_kept(six, monkeypatch, tmp_path):
    monkeypatch.setenv("EMCAD_RUNS", str(tmp_path / "drive"))

    assert begin("03_x", "ci").runs == tmp_path / "drive" / "ci-phantom"


def test_with_empty_settings_it_is_the_quick_profile_on_phantom_patients(home):
    lesson = begin("03_x")

    assert lesson.profile == PROFILES["quick"]
    assert lesson.is_phantom
    assert lesson.data_dir == home / "data" / "phantom"
    assert lesson.figures_dir is None
    assert lesson.seed == 0


def test_the_environment_chooses_profile_and_patients_where_the_notebook_does_not(six, monkeypatch):
    monkeypatch.setenv("EMCAD_PROFILE", "ci")
    monkeypatch.setenv("EMCAD_DATA_DIR", str(six))

    lesson = begin("03_x")

    assert lesson.profile == PROFILES["ci"]
    assert (lesson.data_dir, lesson.is_phantom) == (six, False)


def test_an_unknown_profile_is_refused(six):
    with pytest.raises(CourseError, match="no profile 'fast'"):
        begin("03_x", "fast", str(six))


def test_a_data_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"nowhere: there is no such folder.*DATA_DIR"):
        begin("03_x", "ci", str(tmp_path / "nowhere"))


def test_the_papers_profile_asks_for_real_patients():
    with pytest.raises(CourseError, match="real patients.*DATA_DIR"):
        begin("03_x", "paper")


def test_relative_folders_count_from_where_the_lesson_began(six, monkeypatch):
    monkeypatch.chdir(six.parent)
    lesson = begin("03_x", "ci", six.name, "figs")
    monkeypatch.chdir("/")

    assert lesson.data_dir == six
    assert lesson.figures_dir == six.parent / "figs"


# ---- Its patients ----------------------------------------------------------------------------------------------------


def test_a_lesson_uses_at_most_as_many_patients_as_the_profile_says(six):
    lesson = begin("03_x", "ci", str(six))

    assert [patient.name for patient in lesson.patients] == [f"BraTS20_Training_{number:03d}" for number in range(1, 6)]
    assert lesson.cache.names() == [patient.name for patient in lesson.patients]


def test_without_a_folder_it_makes_phantom_patients_in_the_courses_own(home, monkeypatch, tiny_patients):
    made = []

    def make(folder, patients):
        made.append((folder, patients))
        tiny_patients(folder, patients)

    monkeypatch.setattr(emcad_lib.lesson, "make_phantoms", make)
    lesson = begin("03_x", "ci")

    assert len(lesson.patients) == 5
    assert made == [(home / "data" / "phantom", 5)]
    assert lesson.cache.folder == home / "data" / "cache" / "phantom-5"
    assert lesson.runs == home / "runs" / "ci-phantom"


def test_the_cache_is_made_once_and_then_reused(home, six, monkeypatch):
    first = begin("03_x", "ci", str(six)).cache
    images = first.folder / "patients" / first.names()[0] / "images.npy"
    stamp = images.stat().st_mtime_ns

    second = begin("04_y", "ci", str(six)).cache

    assert first.folder.is_relative_to(home / "data" / "cache")
    assert (second.folder, second.hash) == (first.folder, first.hash)
    assert images.stat().st_mtime_ns == stamp


def test_two_folders_of_one_name_have_their_own_caches_and_runs(tmp_path, tiny_patients):
    for place, seed in (("a", 1), ("b", 2)):
        tiny_patients(tmp_path / place / "brats", 3, seed=seed)
    a, b = (begin("03_x", "ci", str(tmp_path / place / "brats")) for place in "ab")

    assert a.cache.folder != b.cache.folder
    assert a.cache.hash != b.cache.hash
    assert a.runs != b.runs


def test_each_patient_that_is_left_out_is_named_once_and_the_lesson_goes_on(tmp_path, tiny_patients, capsys):
    folder = tmp_path / "patients"
    cut, unlabelled, *whole = tiny_patients(folder, 5)
    (unlabelled / f"{unlabelled.name}_seg.nii.gz").unlink()
    scan = cut / f"{cut.name}_t2.nii.gz"
    scan.write_bytes(scan.read_bytes()[:2000])

    lesson = begin("03_x", "ci", str(folder))
    patients = lesson.patients
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Left out:")]

    assert [patient.name for patient in patients] == lesson.cache.names() == [patient.name for patient in whole]
    assert len(said) == 2
    assert unlabelled.name in said[0]
    assert scan.name in said[1]


def test_fewer_than_three_patients_that_can_be_used_are_refused_with_the_reason(tmp_path, tiny_patients):
    folder = tmp_path / "brats"
    cut, *_ = tiny_patients(folder, 3)
    (cut / f"{cut.name}_t2.nii.gz").write_bytes(b"")

    with pytest.raises(CourseError, match=r"brats: of the patients here 2 can be used, and a lesson needs three"):
        begin("03_x", "ci", str(folder)).cache.names()


def test_the_example_is_the_slice_with_most_tumour_of_the_first_training_patient(six):
    lesson = begin("03_x", "ci", str(six))
    x, y = lesson.example()

    dataset = SliceDataset(lesson.cache, "train", 64)
    of_first = [index for index in range(len(dataset)) if dataset.where(index)[0] == lesson.cache.names("train")[0]]
    areas = [float(dataset[index][1].sum()) for index in of_first]
    best = of_first[int(np.argmax(areas))]

    assert (x.shape, y.shape) == ((1, 3, 64, 64), (1, 1, 64, 64))
    assert y.sum() == max(areas) > 0
    torch.testing.assert_close(x[0], dataset[best][0])


def test_the_example_comes_in_the_size_that_is_asked_for(six):
    x, y = begin("03_x", "ci", str(six)).example(image_size=96)

    assert (x.shape, y.shape) == ((1, 3, 96, 96), (1, 1, 96, 96))


def test_the_trained_network_is_ready_to_predict(six):
    network = begin("03_x", "ci", str(six)).trained()

    assert not network.training


# ---- Its figures -----------------------------------------------------------------------------------------------------


def bars():
    return plots.bars({"a": 1, "b": 2}, "x", "Two bars")


def test_a_figure_is_shown_with_its_description(six, displayed):
    begin("03_x", "ci", str(six)).show(bars(), "03-bars", data={"bar": ["a", "b"]}, alt="Two bars.")

    (image,) = displayed
    assert image.data.startswith(b"\x89PNG")
    assert image.alt == "Two bars."


def test_without_a_folder_for_figures_nothing_is_written(six, displayed, home, tmp_path):
    begin("03_x", "ci", str(six)).show(bars(), "03-bars", data={"bar": ["a", "b"]}, alt="Two bars.")

    assert not home.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_figure_is_kept_with_its_numbers_and_its_record(six, displayed, tmp_path):
    out = tmp_path / "figs"
    data = pd.DataFrame({"bar": ["a", "b"], "height": [1 / 3, 2e-9]})
    begin("03_x", "ci", str(six), str(out), seed=7).show(bars(), "03-bars", data, "Two bars.", runs=["batch6-1a2b"])

    assert (out / "03-bars.png").read_bytes() == displayed[0].data
    assert (out / "data" / "03-bars.csv").read_text() == "bar,height\na,0.333333\nb,2e-09\n"
    assert read_json(out / ".state" / "records" / "03-bars.json") == {
        "id": "03-bars",
        "file": "03-bars.png",
        "data": "data/03-bars.csv",
        "sha256": sha256(out / "data" / "03-bars.csv"),
        "alt": "Two bars.",
        "notebook": "03_x",
        "profile": "ci",
        "patients": "a reader's own",
        "seed": 7,
        "runs": ["batch6-1a2b"],
        "versions": versions(),
    }


def test_the_picture_is_legible_and_the_same_each_time(six, displayed):
    for _ in range(2):
        begin("03_x", "ci", str(six)).show(bars(), "03-bars", data={"bar": [1]}, alt="Two bars.")

    first, second = displayed
    assert first.data == second.data
    assert Picture.open(io.BytesIO(first.data)).width == 700  # 7 inches


def test_columns_of_unequal_length_are_refused(six, displayed, tmp_path):
    lesson = begin("03_x", "ci", str(six), str(tmp_path / "figs"))

    with pytest.raises(ValueError, match="same length"):
        lesson.show(bars(), "03-bars", data={"bar": ["a", "b"], "height": [1]}, alt="Two bars.")


def test_versions_are_those_that_decide_what_a_figure_looks_like():
    assert versions()["python"] == platform.python_version()
    assert versions()["torch"] == torch.__version__.partition("+")[0]
    assert set(versions()) == {"python", "emcad-course", "torch", "timm", "numpy", "matplotlib"}


def test_versions_are_known_where_the_course_is_not_installed_as_on_colab(monkeypatch):
    def version(name):
        return "1.0" if name != "emcad-course" else pytest.fail("the course is no installed package there")

    monkeypatch.setattr(importlib.metadata, "version", version)

    assert versions()["emcad-course"] == emcad_lib.__version__
