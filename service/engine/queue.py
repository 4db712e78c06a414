"""Fair queue: queued requests, and the order in which their images form batches.

Not thread-safe: the worker pool holds its lock around every call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.core.image_info import ImageInfo, Pixels
from service.inference.model import Model
from service.inference.source import ImageSource
from service.observability.timing import Timing

Encode = Callable[[ImageInfo, Pixels], Any]
"""Turns one image into its result: a file, a row of JSON ..."""


@dataclass(eq=False)
class Job:
    """Images of one request, or of one batch of a stream: positions ``span`` of a source.

    ``arrived`` and ``deadline`` are times of ``time.monotonic``.
    """

    source: ImageSource
    span: range
    encode: Encode
    future: asyncio.Future[list[Any]]
    arrived: float
    deadline: float
    group: object
    """Fairness key: jobs with the same key share one place in the round-robin (all batches of a
    stream do)."""
    stream: bool
    request_id: str | None
    """For the log."""
    timing: Timing = field(default_factory=Timing)
    taken: int = 0
    """Images in batches so far, from the first on."""
    finished: bool = False
    """Complete, failed or cancelled: results that still come are dropped."""

    def __post_init__(self) -> None:
        self.results: list[Any] = [None] * len(self.span)
        self.missing = len(self.span)

    @property
    def waiting(self) -> int:
        """Images not yet in a batch."""
        return 0 if self.finished else len(self.span) - self.taken

    def take(self, limit: int) -> BatchSlice:
        """Remove and return the next images, at most ``limit``."""
        chunk = self.span[self.taken : self.taken + limit]
        self.taken += len(chunk)
        return BatchSlice(self, chunk)

    def store(self, chunk: range, results: list[Any]) -> None:
        """Store the results of the images at ``chunk``, positions of the source."""
        first = chunk.start - self.span.start
        self.results[first : first + len(chunk)] = results
        self.missing -= len(chunk)


class BatchSlice(NamedTuple):
    """A job's part of a batch: positions ``chunk`` of its source."""

    job: Job
    chunk: range


def request_ids(jobs: Iterable[Job]) -> str:
    """Ids of the jobs' requests, comma-separated, for the log."""
    return ", ".join(sorted({job.request_id or "none" for job in jobs}))


class FairQueue:
    """Round-robin over models and, for each model, over requests and streams.

    A batch is of one model. A job that does not fit into one batch goes to the back of its queue
    after each batch, so small requests overtake large ones. Requests and streams have separate
    queues that alternate, so requests get every other batch however many streams there are; either
    may use space that the other leaves.
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[Model, bool], _Queue] = {}
        """By model and ``Job.stream``; the first is served next."""
        self._waiting: dict[object, int] = {}
        """Queued images of each group."""
        self.images = 0
        """Total number of queued images."""
        self._first_batch_images = {False: 0, True: 0}
        """By ``Job.stream``: queued images, at most one batch of each group."""
        self._largest_batch = 0

    def images_ahead(self, *, stream: bool) -> int:
        """Queued images that would be computed before a new request, or before a new stream.

        Before a request, streams get one batch, and one for each batch of other requests.
        """
        requests, streams = self._first_batch_images[False], self._first_batch_images[True]
        return requests + (streams if stream else min(streams, requests + self._largest_batch))

    def add(self, job: Job) -> None:
        """Queue all images of a job."""
        queue = self._queues.setdefault((job.source.model, job.stream), {})
        queue.setdefault(job.group, deque()).append(job)
        self._largest_batch = max(self._largest_batch, job.source.model.largest_batch)
        self._count(job, job.waiting)

    def drop(self, job: Job) -> None:
        """Finish ``job`` without its queued images."""
        self._count(job, -job.waiting)
        job.finished = True

    def take(self, limit: int) -> list[BatchSlice]:
        """Remove and return the next batch: 1 to ``limit`` images of one model; [] if empty."""
        if not self.images:
            self._queues.clear()  # of dropped jobs
        while self._queues:
            (model, stream), queue = next(iter(self._queues.items()))
            del self._queues[model, stream]
            batch_limit = min(limit, model.largest_batch)
            slices = _take_from(queue, batch_limit)
            if queue:
                self._queues[model, stream] = queue  # at the back
            space = batch_limit - sum(len(each.chunk) for each in slices)
            if other := self._queues.get((model, not stream)):
                slices += _take_from(other, space)
                if not other:
                    del self._queues[model, not stream]
            if slices:
                for each in slices:
                    self._count(each.job, -len(each.chunk))
                return slices
        return []

    def _count(self, job: Job, images: int) -> None:
        """Add ``images``, which may be negative, to the counts of queued images."""
        before = self._waiting.pop(job.group, 0)
        after = before + images
        if after:
            self._waiting[job.group] = after
        batch = job.source.model.largest_batch
        self.images += images
        self._first_batch_images[job.stream] += min(after, batch) - min(before, batch)


_Queue = dict[object, deque[Job]]
"""Jobs by group; the first group is served next."""


def _take_from(queue: _Queue, limit: int) -> list[BatchSlice]:
    slices = []
    while queue and limit > 0:
        group, jobs = next(iter(queue.items()))
        del queue[group]
        while jobs and limit > 0:
            if jobs[0].waiting:
                slices.append(jobs[0].take(limit))
                limit -= len(slices[-1].chunk)
            if not jobs[0].waiting:
                jobs.popleft()
        if jobs:  # the batch is full
            queue[group] = jobs
    return slices
