"""Images that a search takes, compared with a simple search."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.latents import MAX_INDEX
from service.core.quotas import MAX_MISSES, quotas
from service.engine.search import Search

Good = Callable[[int], bool]


def coin(probability: float) -> Good:
    """Verdict of the verifier, by index."""
    return lambda index: random.Random(index).random() < probability


def plainly(offset: int, missing: list[int], good: Good) -> list[int]:
    """One index after another, nothing ahead."""
    missing, taken, index = list(missing), list[int](), offset
    while any(missing):
        entry = index % len(missing)
        if missing[entry] and good(index):
            missing[entry] -= 1
            taken.append(index)
        index += 1
    return taken


def ahead(search: Search, good: Good, batches: list[int]) -> list[int]:
    """Several batches ahead, as the engine does it."""
    taken, under_way = list[int](), list[list[int]]()
    sizes = iter(batches * 100_000)
    while search.missing:
        indices = search.candidates(next(sizes))
        if indices:
            under_way.append(indices)
        if not indices or len(under_way) == 4:
            taken += [i for i in under_way.pop(0) if search.judge(i, good(i))]
    return taken


@given(
    offset=st.integers(0, 1000),
    missing=st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(any),
    probability=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    batches=st.lists(st.integers(1, 16), min_size=1, max_size=3),
    cut=st.integers(0, 200),
)
@settings(deadline=None)
def test_taken_images_depend_only_on_the_request(
    offset: int, missing: list[int], probability: float, batches: list[int], cut: int
) -> None:
    good = coin(probability)
    search = Search(offset, missing)
    taken = ahead(search, good, batches)
    assert taken == plainly(offset, missing, good)
    assert search.taken == len(taken) == sum(missing)
    # Every index of an entry up to the last that it took was tried, and none after.
    entries = len(missing)
    assert search.tried == sum(
        1
        for index in range(offset, taken[-1] + 1)
        if any(last >= index for last in taken if last % entries == index % entries)
    )
    # Interrupted anywhere, and resumed after the last index with the missing numbers.
    start = taken[:cut]
    rest = list(missing)
    for index in start:
        rest[index % entries] -= 1
    if any(rest):
        after = start[-1] + 1 if start else offset
        assert start + ahead(Search(after, rest), good, batches) == taken


@given(count=st.integers(1, 300), offset=st.integers(0, 50), entries=st.integers(1, 9))
def test_quotas_equal_counts_of_consecutive_indices(count: int, offset: int, entries: int) -> None:
    expected = [0] * entries
    for index in range(offset, offset + count):
        expected[index % entries] += 1
    assert quotas(count, offset, entries) == expected


def test_as_many_candidates_as_are_probably_enough() -> None:
    search = Search(0, [3])
    assert search.candidates(16) == [0, 1, 2]
    assert search.candidates(16) == []
    assert [search.judge(index, index == 1) for index in range(3)] == [False, True, False]
    assert search.candidates(16) == [3, 4, 5, 6]  # two are missing, and half of them will do


def test_search_stops_after_too_many_consecutive_misses() -> None:
    search = Search(0, [1] * 100)
    with pytest.raises(LookupError):
        while True:
            for index in search.candidates(16):
                search.judge(index, False)
    assert search.tried == MAX_MISSES


def test_search_stops_when_one_label_is_never_verified() -> None:
    search = Search(0, [5, 5])
    taken = 0
    with pytest.raises(LookupError) as error:
        while True:
            for index in search.candidates(16):
                taken += search.judge(index, index % 2 == 0)
    assert error.value.args == (1,)
    assert (taken, search.tried) == (5, 5 + MAX_MISSES)


def test_search_stops_at_the_last_index() -> None:
    search = Search(MAX_INDEX, [2])
    assert search.candidates(16) == [MAX_INDEX]
    search.judge(MAX_INDEX, True)
    assert search.candidates(16) == []
    assert (search.missing, search.pending) == (1, 0)
