"""The split of patients into train, val and test."""

from collections import Counter

import pytest

from emcad_lib.data.split import split_patients


def names(count):
    return [f"BraTS20_Training_{number:03d}" for number in range(1, count + 1)]


@pytest.mark.parametrize("count", range(3, 41))
def test_every_patient_is_in_one_split_and_no_split_is_empty_from_three_patients_on(count):
    split = split_patients(names(count), seed=0)

    assert list(split) == names(count)
    assert set(split.values()) == {"train", "val", "test"}


def test_a_hundred_patients_are_split_70_15_15():
    assert Counter(split_patients(names(100), seed=3).values()) == {"train": 70, "val": 15, "test": 15}


def test_other_fractions_are_met_and_never_empty_the_training():
    assert Counter(split_patients(names(10), 0, (0.5, 0.3, 0.2)).values()) == {"train": 5, "val": 3, "test": 2}
    assert Counter(split_patients(names(4), 0, (0.0, 0.5, 0.5)).values()) == {"train": 1, "val": 1, "test": 2}


def test_one_patient_trains_and_of_two_one_validates():
    assert list(split_patients(names(1), seed=0).values()) == ["train"]
    assert sorted(split_patients(names(2), seed=0).values()) == ["train", "val"]
    assert split_patients([], seed=0) == {}


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    forwards, backwards = split_patients(names(30), seed=1), split_patients(iter(names(30)[::-1]), seed=1)

    assert forwards == backwards
    assert forwards != split_patients(names(30), seed=2)


def test_every_patient_is_somewhere_else_under_another_seed():
    splits = [split_patients(names(20), seed) for seed in range(60)]

    assert all({split[name] for split in splits} == {"train", "val", "test"} for name in names(20))


def test_the_split_of_a_seed_stays_what_it_was_when_the_library_changes():
    split = split_patients(names(9), seed=0)

    assert [name[-1] for name in split if split[name] == "val"] == ["6"]
    assert [name[-1] for name in split if split[name] == "test"] == ["1"]


def test_scans_of_one_person_at_two_times_are_in_the_same_split():
    scans = [f"BraTS-GLI-{person:05d}-{time:03d}" for person in range(12) for time in range(1 + person % 3)]

    for seed in range(20):
        split = split_patients(scans, seed)
        people = {scan[:-4]: split[scan] for scan in scans}
        assert all(split[scan] == people[scan[:-4]] for scan in scans)
        assert Counter(people.values()) == {"train": 8, "val": 2, "test": 2}


def test_names_that_only_look_alike_are_different_people():
    assert sorted(split_patients(["Brats18_2013_20_1", "Brats18_2013_20_2", "Brats18_2013_21_1"], 0).values()) == [
        "test",
        "train",
        "val",
    ]


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0.8, 0.2)])
def test_fractions_that_make_no_whole_are_refused(fractions):
    with pytest.raises(ValueError, match="must add up to 1"):
        split_patients(names(5), 0, fractions)
