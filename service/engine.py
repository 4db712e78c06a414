"""What stands between the requests and the threads: admission, deadlines, callers who leave.

One bounded queue holds images, not requests: whichever thread is free takes the next batch from it
at once, made of whatever waits. Nothing waits for a batch to fill up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from service.backlog import Finish, Job, Timing
from service.crew import BEAT, Crew, Outcome, Render
from service.errors import Busy, CallerGone, DeadlinePassed, InferenceFailed, RequestError
from service.sampling import Source

Receive = Callable[[], Awaitable[Any]]
"""ASGI's: it tells, among other things, that the caller has gone."""

TICK = 0.1
"""Seconds between two looks at deadlines, callers and threads."""
WINDOW = 4
"""Batches that a stream keeps under way for each thread: they hide the way to the caller."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """``images``: most in the queue and under way together. Times are in seconds."""

    images: int
    timeout: float
    """From a request's arrival to its answer; for a stream, from one batch to the next."""
    stall: float
    """In one batch, after which its thread is given up."""


class Engine:
    """``start`` it within a running event loop; all else is called from there only."""

    def __init__(
        self,
        render: Render,
        probe: Callable[[], object],
        *,
        threads: int,
        limits: Limits,
        encoders: int = 0,
    ) -> None:
        """See ``Crew``."""
        self._crew = Crew(render, probe, self._deliver, threads=threads, encoders=encoders)
        self._threads = threads
        self._limits = limits
        self._loop: asyncio.AbstractEventLoop
        self._supervisor: asyncio.Task[None]
        self._jobs: dict[Job, Receive | asyncio.Task[None] | None] = {}
        """All that are under way, with the way to see whether the caller has gone."""
        self.admitted = 0
        """Images that are waiting or under way, and those that streams hold room for."""

    async def start(self) -> None:
        """Returns once every thread has proven that it can compute."""
        self._loop = asyncio.get_running_loop()
        self._crew.start()
        while not self._crew.proven:
            await asyncio.sleep(0.001)
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the threads; what still waits is not computed."""
        self._supervisor.cancel()
        await asyncio.to_thread(self._crew.close)

    @property
    def ready(self) -> bool:
        """Some thread has lately said that it lives."""
        return time.monotonic() - self._crew.last_beat() < max(self._limits.stall, 2 * BEAT)

    @property
    def rate(self) -> float | None:
        """Images per second that can be made, as measured last; None before anything was."""
        return self._crew.rate

    async def run(
        self, source: Source, count: int, finish: Finish, receive: Receive | None = None
    ) -> tuple[list[Any], Timing]:
        """``finish`` of the images at ``range(count)`` of ``source``, in order.

        Raises ``Busy`` at once where the queue has no room, ``DeadlinePassed``, ``CallerGone``
        where ``receive`` says so, ``InferenceFailed``, or what ``finish`` raises.
        """
        with self._room(count):
            job = self._submit(source, range(count), finish, receive)
            return await self._result(job), job.timing

    async def stream(
        self, source: Source, count: int, finish: Finish
    ) -> AsyncGenerator[list[Any], None]:
        """As ``run``, batch by batch, computing ahead no more than the caller keeps up with.

        From the first batch to the last it holds room in the queue for what it computes ahead, so
        that once begun it is never refused.
        """
        window = WINDOW * self._threads
        batch = source.model.largest_batch
        ahead: deque[Job] = deque()
        with self._room(min(count, window * batch)):
            try:
                for first in range(0, count, batch):
                    span = range(first, min(first + batch, count))
                    ahead.append(self._submit(source, span, finish, None))
                    if len(ahead) == window:
                        yield await self._result(ahead.popleft())
                while ahead:
                    yield await self._result(ahead.popleft())
            finally:
                for job in ahead:
                    self._end(job)

    @contextlib.contextmanager
    def _room(self, images: int) -> Iterator[None]:
        """Raises ``Busy`` where the queue has no room for so many more."""
        excess = self.admitted + images - self._limits.images
        if excess > 0:
            seconds = math.ceil(excess / self.rate) if self.rate else 1
            raise Busy(
                f"no room for {images} images: {self.admitted} wait or are under way, and "
                f"{self._limits.images} may. Try again in {seconds} s",
                retry_after=seconds,
            )
        self.admitted += images
        try:
            yield
        finally:
            self.admitted -= images

    def _submit(self, source: Source, span: range, finish: Finish, receive: Receive | None) -> Job:
        now = time.monotonic()
        answered = self._loop.create_future()
        job = Job(source, span, finish, answered, now, now + self._limits.timeout)
        self._jobs[job] = receive
        self._crew.add(job)
        return job

    async def _result(self, job: Job) -> list[Any]:
        try:
            return await job.answered
        finally:
            self._end(job)

    def _end(self, job: Job, error: RequestError | None = None) -> None:
        """Compute no more of a job; ``error`` is told to whoever waits for it."""
        watch = self._jobs.pop(job, None)
        if isinstance(watch, asyncio.Task):
            watch.cancel()
        if not job.over:
            self._crew.drop(job)
        if not job.answered.done():
            if error is None:
                job.answered.cancel()
            else:
                job.answered.set_exception(error)
        if not job.answered.cancelled():
            job.answered.exception()  # asyncio complains of one that nobody has looked at

    def _deliver(self, outcomes: list[Outcome]) -> None:
        """On one of the threads."""
        self._loop.call_soon_threadsafe(_answer, outcomes)

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for worker in self._crew.stalled(since=now - self._limits.stall):
                log.error("a thread hangs in a batch; another takes its place")
                for job in self._crew.replace(worker):
                    self._end(job, InferenceFailed("the model did not come to an end"))
            for job, watch in list(self._jobs.items()):
                if now > job.deadline:
                    self._end(job, DeadlinePassed(f"not done within {self._limits.timeout:g} s"))
                elif callable(watch) and now > job.arrived + TICK:
                    # Not before: most are answered sooner, and a watch costs as much as a request.
                    self._jobs[job] = asyncio.create_task(self._watch(job, watch))

    async def _watch(self, job: Job, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._end(job, CallerGone("the caller has gone"))


def _answer(outcomes: list[Outcome]) -> None:
    for job, error in outcomes:
        if job.answered.done():
            continue
        if error is None:
            job.answered.set_result(job.results)
        else:
            job.answered.set_exception(error)
