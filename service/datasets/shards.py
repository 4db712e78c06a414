"""Indices of the images in each file of a dataset.

The image at index i has label i mod len. Indices are used in order; once a label has its count, its
indices are skipped, as in ``POST /generate`` with a list in ``n``. Here the indices of any file are
found without visiting those before.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence


class LabelledIndices:
    """Indices from ``offset`` on that a dataset uses; ``counts``: images of each label."""

    def __init__(self, offset: int, counts: Sequence[int]) -> None:
        self.count = sum(counts)
        self._offset = offset
        self._entries = len(counts)
        # A round visits each label once; slot i is index offset + i of the first round.
        self._rounds = [counts[(offset + slot) % len(counts)] for slot in range(len(counts))]

    def indices(self, ranks: range) -> list[int]:
        """Increasing indices of the images at ``ranks``, positions in the dataset from 0."""
        if not ranks:
            return []
        round_ = self._round_of(ranks.start)
        skipped = ranks.start - self._used_before(round_)
        slots = [*enumerate(self._rounds)]
        found: list[int] = []
        while len(found) < skipped + len(ranks):
            slots = [(slot, rounds) for slot, rounds in slots if rounds > round_]
            first = self._offset + round_ * self._entries
            found += [first + slot for slot, _ in slots]
            round_ += 1
        return found[skipped : skipped + len(ranks)]

    def _used_before(self, round_: int) -> int:
        return sum(min(rounds, round_) for rounds in self._rounds)

    def _round_of(self, rank: int) -> int:
        rounds = range(max(self._rounds))
        return bisect.bisect_right(rounds, rank, key=self._used_before) - 1


class Shards:
    """A dataset split into files of ``per_file`` images, fewer in the last."""

    def __init__(self, selection: LabelledIndices, per_file: int) -> None:
        self._selection = selection
        self._per_file = per_file

    def __len__(self) -> int:
        return -(-self._selection.count // self._per_file)

    def size(self, number: int) -> int:
        """Number of images in a file."""
        return len(self._ranks(number))

    def indices(self, number: int) -> list[int]:
        """Increasing indices of the images in a file."""
        return self._selection.indices(self._ranks(number))

    def end(self, number: int) -> int:
        """Index after the last image of a file."""
        return self._selection.indices(self._ranks(number)[-1:])[0] + 1

    def _ranks(self, number: int) -> range:
        first = number * self._per_file
        return range(first, min(first + self._per_file, self._selection.count))
