"""Indices of the images in each file."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.datasets.shards import LabelledIndices, Shards


@given(
    st.integers(0, 2**40),
    st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    st.integers(1, 20),
)
def test_images_of_a_file_are_found_without_those_before(
    offset: int, counts: list[int], per_file: int
) -> None:
    missing, taken = list(counts), []
    for index in itertools.count(offset):
        if missing[index % len(counts)]:
            missing[index % len(counts)] -= 1
            taken.append(index)
        if not any(missing):
            break
    shards = Shards(LabelledIndices(offset, counts), per_file)
    found = [shards.indices(number) for number in range(len(shards))]
    assert found == [taken[i : i + per_file] for i in range(0, len(taken), per_file)]
    assert [shards.end(number) for number in range(len(shards))] == [each[-1] + 1 for each in found]
    assert [shards.size(number) for number in range(len(shards))] == [len(each) for each in found]


@pytest.mark.parametrize("counts", [[10**8], [7 * 10**7, 0, 1, 3 * 10**7 - 1], [10**5] * 1000])
def test_the_last_of_a_hundred_million_images(counts: list[int]) -> None:
    offset, entries, per_file = 2**52, len(counts), 10_000
    shards = Shards(LabelledIndices(offset, counts), per_file)
    assert len(shards) == 10_000
    for number in (0, 1, 5000, 9999):
        first, *_ = indices = shards.indices(number)
        assert len(indices) == per_file
        assert shards.end(number) == indices[-1] + 1
        # All before it are taken, but for those of an entry that has its share.
        before = 0
        for entry, count in enumerate(counts):
            place = offset + (entry - offset) % entries
            before += min(count, len(range(place, first, entries)))
        assert before == number * per_file
