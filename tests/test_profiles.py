"""The sizes of the course's experiments, and how one of them is chosen."""

import pytest

from emcad_lib.files import CourseError
from emcad_lib.profiles import PROFILES, get_profile


@pytest.mark.parametrize("name", ["ci", "quick", "paper"])
def test_each_profile_is_found_by_its_name(name):
    assert get_profile(name).name == name


def test_without_a_name_the_environment_decides(monkeypatch):
    monkeypatch.setenv("EMCAD_PROFILE", "ci")

    assert get_profile().name == "ci"
    assert get_profile("paper").name == "paper"


@pytest.mark.parametrize("setting", [None, ""])
def test_without_a_name_and_without_the_environment_it_is_quick(monkeypatch, setting):
    monkeypatch.delenv("EMCAD_PROFILE", raising=False)
    if setting is not None:
        monkeypatch.setenv("EMCAD_PROFILE", setting)

    assert get_profile().name == "quick"


@pytest.mark.parametrize("name", ["fast", "CI", "quick "])
def test_an_unknown_profile_is_refused_with_the_names_of_the_others(name):
    with pytest.raises(CourseError, match=rf"{name}.*Choose one of: ci, quick, paper"):
        get_profile(name)


def test_an_unknown_profile_in_the_environment_is_refused_too(monkeypatch):
    monkeypatch.setenv("EMCAD_PROFILE", "fast")

    with pytest.raises(CourseError, match="fast"):
        get_profile()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_fits_the_network_and_compares_the_papers_batch_sizes(profile):
    assert profile.image_size % 32 == 0
    assert profile.batch_sizes == (6, 16, 25)
    assert profile.patients >= 3  # one each to train, validate and test with


def test_only_the_papers_profile_needs_a_download():
    assert {name for name, profile in PROFILES.items() if profile.pretrained} == {"paper"}


def test_the_papers_profile_is_the_published_training():
    paper = PROFILES["paper"]

    assert (paper.patients, paper.image_size, paper.learning_rate, paper.epochs) == (369, 224, 1e-4, 200)
