"""Labels of every year, mapped to the three regions and back."""

from __future__ import annotations

import numpy as np
import pytest

from emcad_lib.data.labels import BRATS_2020, BRATS_2023, DECATHLON, REGIONS, region_mask
from emcad_lib.files import CourseError

CONVENTIONS = [BRATS_2020, BRATS_2023, DECATHLON]

# background, necrosis, oedema, enhancing, as each release numbers them
TISSUES = {BRATS_2020: [0, 1, 2, 4], BRATS_2023: [0, 1, 2, 3], DECATHLON: [0, 2, 1, 3]}


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.name)
def test_regions_are_nested_the_same_way_in_every_convention(convention):
    bits = convention.regions(np.array(TISSUES[convention]))

    assert region_mask(bits, "whole").tolist() == [False, True, True, True]
    assert region_mask(bits, "core").tolist() == [False, True, False, True]
    assert region_mask(bits, "enhancing").tolist() == [False, False, False, True]
    assert bits.tolist() == [0b000, 0b011, 0b001, 0b111]
    assert bits.dtype == np.uint8


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.name)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_encode_is_the_way_back_from_regions_for_every_dtype(convention, dtype):
    labels = np.random.default_rng(0).choice(TISSUES[convention], size=(4, 5, 6)).astype(dtype)

    again = convention.encode(convention.regions(labels))

    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, labels)


@pytest.mark.parametrize(
    ("convention", "value", "allowed"),
    [
        (BRATS_2020, 3, "0, 1, 2, 4"),
        (BRATS_2020, 5, "0, 1, 2, 4"),
        (BRATS_2023, 4, "0, 1, 2, 3"),
        (DECATHLON, 4, "0, 1, 2, 3"),
        (BRATS_2020, -1, "0, 1, 2, 4"),
        (BRATS_2020, 1.5, "0, 1, 2, 4"),
        (BRATS_2023, 2.9999, "0, 1, 2, 3"),
        (BRATS_2020, np.nan, "0, 1, 2, 4"),
        (BRATS_2020, np.inf, "0, 1, 2, 4"),
    ],
)
def test_any_other_value_is_refused_with_what_was_found_and_what_is_allowed(convention, value, allowed):
    labels = np.zeros((3, 3, 3), dtype=np.float32 if isinstance(value, float) else np.int16)
    labels[1, 2, 0] = value

    with pytest.raises(CourseError, match=f"found {value:g}, .* are {allowed}"):
        convention.regions(labels)


def test_many_unknown_values_are_not_all_listed():
    with pytest.raises(CourseError, match=r"found 10, 11, 12, 13, 14, \.\.\., but"):
        BRATS_2020.regions(np.arange(10, 200))


def test_a_model_that_only_knows_the_whole_tumour_writes_oedema():
    whole_only = np.array([0, 1], dtype=np.uint8)

    assert BRATS_2020.encode(whole_only).tolist() == [0, 2]
    assert BRATS_2023.encode(whole_only).tolist() == [0, 2]
    assert DECATHLON.encode(whole_only).tolist() == [0, 1]


def test_the_innermost_region_decides_where_bits_are_not_nested():
    enhancing_alone, core_alone, enhancing_in_whole = 0b100, 0b010, 0b101

    labels = BRATS_2020.encode(np.array([enhancing_alone, core_alone, enhancing_in_whole], dtype=np.uint8))

    assert labels.tolist() == [4, 1, 4]


@pytest.mark.parametrize("bits", [np.array([8], dtype=np.uint8), np.array([-1])])
def test_encode_refuses_what_three_bits_cannot_make(bits):
    with pytest.raises(CourseError, match="between 0 and 7"):
        BRATS_2020.encode(bits)


def test_a_region_that_does_not_exist_is_named_with_the_three_that_do():
    with pytest.raises(CourseError, match="'edema'.*whole, core, enhancing"):
        region_mask(np.zeros(1, dtype=np.uint8), "edema")
    assert REGIONS == ("whole", "core", "enhancing")
