"""Search for images: those that the label verifier accepts, or a number of each label.

Indices are tried in order. The image at index i belongs to entry ``i mod n`` of the n labels; it is
taken if its entry still misses images and the verifier accepts it. The result follows from the
request alone, whatever is computed ahead. An interrupted search resumes after its last index with
the number that each entry still misses.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from service.core.image_info import ImageInfo, Pixels
from service.core.latents import MAX_INDEX
from service.core.quotas import MAX_MISSES
from service.engine.engine import Engine
from service.engine.limits import ImageBudget
from service.errors import InvalidRequest, LabelNotVerified
from service.inference.seeds import SeedImages

MAX_ADDRESSES = 1024
"""Bounds the size of the error."""

Result = TypeVar("Result")


class Search:
    """Progress of one search: missing images of each entry, and the next index to try."""

    def __init__(self, offset: int, missing: Sequence[int]) -> None:
        """``offset``: first index; ``missing``: number of images wanted of each entry."""
        self.tried = 0
        """Judged images whose entry still missed some."""
        self.taken = 0
        self.pending = 0
        """Candidates not judged yet."""
        self._missing = list(missing)
        self._misses = [0] * len(missing)
        """Consecutive rejected images of each entry."""
        self._consecutive_misses = 0
        self._next = offset

    @property
    def missing(self) -> int:
        """Images still to be found."""
        return sum(self._missing)

    def candidates(self, limit: int) -> list[int]:
        """Next indices to try, at most ``limit``; [] if the pending ones are probably enough."""
        needed = self.missing * (self.tried + 1) / (self.taken + 1)
        limit = min(limit, math.ceil(needed) - self.pending)
        found: list[int] = []
        while len(found) < limit and self._next <= MAX_INDEX:
            if self._missing[self._next % len(self._missing)]:
                found.append(self._next)
            self._next += 1
        self.pending += len(found)
        return found

    def judge(self, index: int, good: bool) -> bool:
        """Count one candidate, ``good`` if the verifier accepts it; return True if it is taken.

        Candidates must be judged in their order. Raises ``LookupError`` with the position of an
        entry after ``MAX_MISSES`` consecutive misses.
        """
        self.pending -= 1
        entry = index % len(self._missing)
        if not self._missing[entry]:
            return False
        self.tried += 1
        if good:
            self._missing[entry] -= 1
            self._misses[entry] = self._consecutive_misses = 0
            self.taken += 1
            return True
        self._misses[entry] += 1
        self._consecutive_misses += 1
        if MAX_MISSES in (self._misses[entry], self._consecutive_misses):
            raise LookupError(entry)
        return False


async def search_images(
    engine: Engine,
    samples: SeedImages,
    search: Search,
    threshold: float | None,
    encode: Callable[[ImageInfo, Pixels], Result],
    budget: ImageBudget,
) -> AsyncGenerator[list[Result], None]:
    """Results of ``encode`` for the images that ``search`` takes, batch by batch, by rising index.

    With a ``threshold``, an image is taken if the verifier gives every requested value at least
    this probability. The indices of ``samples`` are ignored. ``budget`` is charged for every image
    tried.

    Raises ``LabelNotVerified``, ``InvalidRequest`` if the indices run out, and the engine's errors.
    """
    samples = replace(samples, verify=threshold is not None)
    found: list[str] = []

    def encode_good(info: ImageInfo, pixels: Pixels) -> tuple[ImageInfo, Result | None]:
        probabilities = (info.verified or {}).values()
        good = all(probability >= (threshold or 0) for probability in probabilities)
        return info, encode(info, pixels) if good else None

    batches = engine.stream_batches(_candidate_batches(samples, search), encode_good, budget)
    async with aclosing(batches):
        async for batch in batches:
            taken, missed = [], None
            for info, result in batch:
                try:
                    if search.judge(info.index, result is not None):
                        taken.append(result)
                        if len(found) < MAX_ADDRESSES:
                            found.append(samples.address(info.index).url())
                except LookupError as error:
                    (missed,) = error.args
                    break
            yield taken
            if missed is not None:
                phrase = samples.labels[missed].phrase if samples.labels else None
                raise LabelNotVerified(phrase, threshold, search.tried, search.taken, found)
            if not search.missing:
                return


def _candidate_batches(
    samples: SeedImages, search: Search
) -> Iterator[tuple[SeedImages, range] | None]:
    """Batches to try; None while the pending ones must be judged first."""
    while search.missing:
        indices = search.candidates(samples.model.largest_batch)
        if indices:
            yield replace(samples, indices=indices), range(len(indices))
        elif search.pending:
            yield None
        else:
            raise InvalidRequest(
                f"offset: {search.missing} images are missing at the last index, {MAX_INDEX}",
                kind="Fields disagree",
            )
