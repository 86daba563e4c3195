"""An update's batch in parts."""

import pytest

from emcad_lib.train.parts import largest_part, smallest_part, split_batch


def lengths(*arguments):
    return [part.stop - part.start for part, _ in split_batch(*arguments)]


def test_25_slices_over_5_micro_batches_are_5_each():
    assert largest_part(25, accumulate=5) == 5
    assert split_batch(25, 5) == [(slice(start, start + 5), 0.2) for start in range(0, 25, 5)]


def test_what_does_not_divide_is_split_as_equally_as_possible():
    assert largest_part(25, accumulate=4) == 7
    assert lengths(25, 7) == [6, 6, 6, 7]


def test_a_short_last_batch_has_fewer_parts_and_none_larger_than_the_others():
    assert lengths(9, 7) == [4, 5]
    assert lengths(3, 7) == [3]


@pytest.mark.parametrize("slices", range(1, 30))
@pytest.mark.parametrize(("largest", "processes"), [(7, 1), (5, 2), (1, 3), (4, 4)])
def test_the_parts_of_all_processes_are_the_batch_each_slice_once_and_weigh_by_their_slices(slices, largest, processes):
    parts = [split_batch(slices, largest, processes, process) for process in range(processes)]

    seen = [number for part, _ in sum(parts, []) for number in range(slices)[part]]
    assert seen == list(range(slices))
    assert len({len(of_one) for of_one in parts}) == 1  # all processes go forward equally often
    for part, share in sum(parts, []):
        assert share == (part.stop - part.start) / slices
        assert smallest_part(slices, largest, processes) <= part.stop - part.start <= largest


def test_fewer_slices_than_processes_leave_a_part_without_any():
    assert split_batch(1, 4, processes=2, process=0) == [(slice(0, 0), 0.0)]
    assert split_batch(1, 4, processes=2, process=1) == [(slice(0, 1), 1.0)]
    assert smallest_part(1, 4, processes=2) == 0
