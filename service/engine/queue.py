"""Requests that wait, and how their images are packed into batches.

Nothing here locks or waits: those who use it do, around it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.core.image_info import ImageInfo, Pixels
from service.inference.model import Model
from service.inference.seeds import ImageSource
from service.observability.timing import Timing

Encode = Callable[[ImageInfo, Pixels], Any]
"""What becomes of one image: a file, a row of JSON ..."""


@dataclass(eq=False)
class Job:
    """The images at the positions ``span`` of a source, on their way to one caller.

    ``arrived`` and ``deadline`` are times of ``time.monotonic``.
    """

    source: ImageSource
    span: range
    finish: Encode
    answered: asyncio.Future[list[Any]]
    arrived: float
    deadline: float
    turn: object
    """Jobs of one turn, such as those of one stream, take turns with others as if they were one."""
    stream: bool
    """It is part of a stream, of which there is always more."""
    request_id: str | None
    """For the log."""
    timing: Timing = field(default_factory=Timing)
    taken: int = 0
    """Images handed out to be computed, from the first on."""
    over: bool = False
    """Answered or given up: what is still computed for it goes nowhere."""

    def __post_init__(self) -> None:
        self.results: list[Any] = [None] * len(self.span)
        self.missing = len(self.span)

    @property
    def waiting(self) -> int:
        """Images that nobody has begun."""
        return 0 if self.over else len(self.span) - self.taken

    def take(self, most: int) -> BatchSlice:
        """The next images, ``most`` or as many as there are."""
        chunk = self.span[self.taken : self.taken + most]
        self.taken += len(chunk)
        return BatchSlice(self, chunk)

    def store(self, chunk: range, results: list[Any]) -> None:
        """Keep the results of the images at ``chunk``, positions of the source."""
        first = chunk.start - self.span.start
        self.results[first : first + len(chunk)] = results
        self.missing -= len(chunk)


class BatchSlice(NamedTuple):
    """A job's share of a batch: the images at the positions ``chunk`` of its source."""

    job: Job
    chunk: range


def names(jobs: Iterable[Job]) -> str:
    """The ids of their requests, for the log."""
    return ", ".join(sorted({job.request_id or "none" for job in jobs}))


class FairQueue:
    """Jobs in turn, two lines for each model: a batch is of one model, and the lines take turns.

    Within a line, whoever has more than fits into a batch goes to the end after it, so that large
    requests and streams let all others by. Streams have a line of their own: they always wait for
    something, and however many there are, requests have every other batch. Whatever room a line
    leaves in a batch is the other's.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[Model, bool], _Line] = {}
        """By model, and whether they are of streams."""
        self._waiting: dict[object, int] = {}  # of each turn
        self.images = 0
        """All that wait."""
        self._first = {False: 0, True: 0}
        """Of requests and of streams: a batch at most of each turn."""
        self._batch = 0
        """The largest there was."""

    def ahead(self, *, stream: bool) -> int:
        """Images that would be taken before a new request; or before a new stream.

        Streams before a request: a batch, and one for each batch of the requests before it.
        """
        requests, streams = self._first[False], self._first[True]
        return requests + (streams if stream else min(streams, requests + self._batch))

    def add(self, job: Job) -> None:
        line = self._lines.setdefault((job.source.model, job.stream), {})
        line.setdefault(job.turn, deque()).append(job)
        self._batch = max(self._batch, job.source.model.largest_batch)
        self._count(job, job.waiting)

    def drop(self, job: Job) -> None:
        """What waits of ``job`` will not be taken any more."""
        self._count(job, -job.waiting)
        job.over = True

    def take(self, most: int) -> list[BatchSlice]:
        """The next batch, of 1 to ``most`` images of one model; empty if nothing waits."""
        if not self.images:
            self._lines.clear()  # of jobs that were dropped
        while self._lines:
            (model, stream), line = next(iter(self._lines.items()))
            del self._lines[model, stream]
            most_here = min(most, model.largest_batch)
            pieces = _take_from(line, most_here)
            if line:
                self._lines[model, stream] = line  # behind all others
            room = most_here - sum(len(piece.chunk) for piece in pieces)
            if other := self._lines.get((model, not stream)):
                pieces += _take_from(other, room)
                if not other:
                    del self._lines[model, not stream]
            if pieces:
                for piece in pieces:
                    self._count(piece.job, -len(piece.chunk))
                return pieces
        return []

    def _count(self, job: Job, images: int) -> None:
        """So many more of a job wait."""
        before = self._waiting.pop(job.turn, 0)
        after = before + images
        if after:
            self._waiting[job.turn] = after
        batch = job.source.model.largest_batch
        self.images += images
        self._first[job.stream] += min(after, batch) - min(before, batch)


_Line = dict[object, deque[Job]]


def _take_from(line: _Line, most: int) -> list[BatchSlice]:
    pieces = []
    while line and most > 0:
        turn, jobs = next(iter(line.items()))
        del line[turn]
        while jobs and most > 0:
            if jobs[0].waiting:
                pieces.append(jobs[0].take(most))
                most -= len(pieces[-1].chunk)
            if not jobs[0].waiting:
                jobs.popleft()
        if jobs:  # and the batch is full
            line[turn] = jobs
    return pieces
