"""Which images are in which file of a set.

The image at index i belongs to entry i mod len of the list of labels. Indices are taken in order,
but for those of an entry that has its share. That is all that ``POST /generate`` does with a list
in ``n``; here the n-th image taken is found without going through those before.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence


class LabelledIndices:
    """The indices that are taken from ``offset`` on; ``counts``: images of each entry."""

    def __init__(self, offset: int, counts: Sequence[int]) -> None:
        self.count = sum(counts)
        self._offset = offset
        self._entries = len(counts)
        # A lap goes through all entries once; this is how many laps have an image of each place.
        self._laps = [counts[(offset + place) % len(counts)] for place in range(len(counts))]

    def indices(self, ranks: range) -> list[int]:
        """Of the images that are the ``ranks``-th to be taken, counted from 0; increasing."""
        if not ranks:
            return []
        lap = self._lap_of(ranks.start)
        skipped = ranks.start - self._taken_before(lap)
        places = [*enumerate(self._laps)]
        found: list[int] = []
        while len(found) < skipped + len(ranks):
            places = [(place, laps) for place, laps in places if laps > lap]
            first = self._offset + lap * self._entries
            found += [first + place for place, _ in places]
            lap += 1
        return found[skipped : skipped + len(ranks)]

    def _taken_before(self, lap: int) -> int:
        return sum(min(laps, lap) for laps in self._laps)

    def _lap_of(self, rank: int) -> int:
        laps = range(max(self._laps))
        return bisect.bisect_right(laps, rank, key=self._taken_before) - 1


class Shards:
    """A set cut into files of ``per_file`` images, but for the last."""

    def __init__(self, selection: LabelledIndices, per_file: int) -> None:
        self._selection = selection
        self._per_file = per_file

    def __len__(self) -> int:
        return -(-self._selection.count // self._per_file)

    def size(self, number: int) -> int:
        """Images in a file."""
        return len(self._ranks(number))

    def indices(self, number: int) -> list[int]:
        """Of the images in a file; increasing."""
        return self._selection.indices(self._ranks(number))

    def end(self, number: int) -> int:
        """The index behind the last image of a file."""
        return self._selection.indices(self._ranks(number)[-1:])[0] + 1

    def _ranks(self, number: int) -> range:
        first = number * self._per_file
        return range(first, min(first + self._per_file, self._selection.count))
