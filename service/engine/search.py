"""Which images are taken, where not all of a seed are: so many of each label, or verified ones.

Indices are gone through in order. The image at index i belongs to entry i mod len of the list of
labels; it is taken if that entry still misses images and the verifier agrees. What is taken follows
from the request alone, whatever is computed ahead, and a search that was cut goes on behind the
last index with what each entry still misses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from service.core.latents import MAX_INDEX
from service.core.quotas import MAX_MISSES


class Search:
    """What is missing, and where to look for it next."""

    def __init__(self, offset: int, missing: Sequence[int]) -> None:
        """``missing``: images of each entry."""
        self.tried = 0
        """Images that were judged and could have been taken."""
        self.taken = 0
        self._missing = list(missing)
        self._in_vain = [0] * len(missing)
        self._in_a_row = 0
        self._next = offset
        self.under_way = 0
        """Candidates that were not judged yet."""

    @property
    def missing(self) -> int:
        return sum(self._missing)

    def candidates(self, most: int) -> list[int]:
        """The next indices to try; none if those under way are likely to be enough."""
        needed = self.missing * (self.tried + 1) / (self.taken + 1)
        most = min(most, math.ceil(needed) - self.under_way)
        found: list[int] = []
        while len(found) < most and self._next <= MAX_INDEX:
            if self._missing[self._next % len(self._missing)]:
                found.append(self._next)
            self._next += 1
        self.under_way += len(found)
        return found

    def judge(self, index: int, good: bool) -> bool:
        """Whether the image is taken. Candidates are judged in their order.

        Raises ``LookupError`` with an entry that no image was found for in a long time.
        """
        self.under_way -= 1
        entry = index % len(self._missing)
        if not self._missing[entry]:
            return False
        self.tried += 1
        if good:
            self._missing[entry] -= 1
            self._in_vain[entry] = self._in_a_row = 0
            self.taken += 1
            return True
        self._in_vain[entry] += 1
        self._in_a_row += 1
        if MAX_MISSES in (self._in_vain[entry], self._in_a_row):
            raise LookupError(entry)
        return False
