"""What stands between the requests and the threads: admission, deadlines, callers who leave.

One bounded queue holds images, not requests: whichever thread is free takes the next batch from it
at once, made of whatever waits. Nothing waits for a batch to fill up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from service.engine.admission import REQUEST_KEY, RetryReservations
from service.engine.queue import Encode, Job, names
from service.engine.worker_pool import HEARTBEAT_SECONDS, Outcome, Render, WorkerPool
from service.errors import (
    ClientDisconnected,
    DeadlineExceeded,
    InferenceFailed,
    QueueFull,
    RequestError,
)
from service.inference.seeds import ImageSource
from service.observability import metrics
from service.observability.logging import REQUEST_ID
from service.observability.timing import Timing

Receive = Callable[[], Awaitable[Any]]
"""ASGI's: it tells, among other things, that the caller has gone."""

POLL_SECONDS = 0.1
"""Seconds between two looks at deadlines, callers and threads."""
STREAM_PREFETCH = 4
"""Batches that a stream keeps under way for each thread: they hide the way to the caller."""

STANDSTILL = 1.0
"""Seconds; when the supervisor is later than that, the process was stopped, or starved."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """``images``: most in the queue and under way together. Times are in seconds."""

    images: int
    wait: float
    """Until an image is begun, as far as can be told when it is asked for."""
    timeout: float
    """From a request's arrival to its answer; for a stream, from one batch to the next."""
    stall: float
    """In one batch, after which its thread is given up."""


class ImageBudget(Protocol):
    """Who may have only so many images per second."""

    def charge(self, images: int) -> None:
        """So many are about to be computed; raises a ``RequestError`` where they may not be."""
        ...

    def charge_or_wait(self, images: int) -> float:
        """The same: 0, or the seconds until they may be."""
        ...


class _Unlimited:
    def charge(self, images: int) -> None:
        pass

    def charge_or_wait(self, images: int) -> float:
        return 0


UNLIMITED = _Unlimited()


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
        """See ``WorkerPool``."""
        self._crew = WorkerPool(render, probe, self._deliver, threads=threads, encoders=encoders)
        self._threads = threads
        self._limits = limits
        self._loop: asyncio.AbstractEventLoop
        self._supervisor: asyncio.Task[None]
        self._jobs: dict[Job, Receive | asyncio.Task[None] | None] = {}
        """All that are under way, with the way to see whether the caller has gone."""
        self._line = RetryReservations()

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
        ended = asyncio.Event()

        def end() -> None:
            self._crew.close()
            self._loop.call_soon_threadsafe(ended.set)

        # Not on asyncio's own threads, all of which may hang.
        threading.Thread(target=end, name="end", daemon=True).start()
        await ended.wait()

    @property
    def ready(self) -> bool:
        """Some thread has lately said that it lives."""
        return time.monotonic() - self._crew.last_beat() < max(
            self._limits.stall, 2 * HEARTBEAT_SECONDS
        )

    @property
    def admitted(self) -> int:
        """Images that wait or are under way."""
        return self._crew.images

    @property
    def rate(self) -> float | None:
        """Images per second that can be made, as measured last; None before anything was."""
        return self._crew.rate

    async def run(
        self,
        source: ImageSource,
        count: int,
        finish: Encode,
        receive: Receive | None = None,
        payer: ImageBudget = UNLIMITED,
    ) -> tuple[list[Any], Timing]:
        """``finish`` of the images at ``range(count)`` of ``source``, in order.

        Raises ``QueueFull`` at once where the queue has no room, ``DeadlineExceeded``,
        ``ClientDisconnected`` where ``receive`` says so, ``InferenceFailed``, or what
        ``finish`` or ``payer`` raises.
        """
        self._admit(count, source, stream=False)
        payer.charge(count)
        job = self._submit(source, range(count), finish, receive)
        return await self._result(job), job.timing

    def stream(
        self, source: ImageSource, count: int, finish: Encode, payer: ImageBudget = UNLIMITED
    ) -> AsyncGenerator[list[Any], None]:
        """As ``run``, batch by batch; see ``stream_batches``."""
        size = source.model.largest_batch
        spans = (range(first, min(first + size, count)) for first in range(0, count, size))
        return self.stream_batches(((source, span) for span in spans), finish, payer)

    async def stream_batches(
        self,
        batches: Iterable[tuple[ImageSource, range] | None],
        finish: Encode,
        payer: ImageBudget = UNLIMITED,
    ) -> AsyncGenerator[list[Any], None]:
        """``finish`` of the images of each batch, in order.

        Computes ahead no more than the caller keeps up with. ``batches`` has None where it depends
        on results which batch comes next.

        Only the first batch may be refused; the others wait until there is room for them, and
        until ``payer`` may have them.
        """
        turn = object()
        ahead: deque[Job] = deque()
        admitted = False
        try:
            for batch in batches:
                if batch is not None:
                    source, span = batch
                    if not admitted:
                        self._admit(len(span), source, stream=True)
                        payer.charge(len(span))
                        admitted = True
                    else:
                        while not self._has_room(len(span), more=bool(ahead)):
                            if ahead and ahead[0].answered.done():
                                yield await self._result(ahead.popleft())
                            else:
                                await asyncio.sleep(POLL_SECONDS / 10)
                        while (seconds := payer.charge_or_wait(len(span))) > 0:
                            if ahead:  # nothing that is there waits for what may come
                                yield await self._result(ahead.popleft())
                            else:
                                await asyncio.sleep(seconds)
                    ahead.append(self._submit(source, span, finish, None, turn))
                if batch is None or len(ahead) == STREAM_PREFETCH * self._threads:
                    yield await self._result(ahead.popleft())
            while ahead:
                yield await self._result(ahead.popleft())
        finally:
            for job in ahead:
                self._end(job)

    def _has_room(self, images: int, *, more: bool) -> bool:
        """For a stream that is let in, and has ``more`` under way: half the queue is for others."""
        return self.admitted + images <= self._limits.images / (2 if more else 1)

    def _admit(self, images: int, source: ImageSource, *, stream: bool) -> None:
        """Raises ``QueueFull`` where there is no room for so many more, or they would be late.

        Late is what waits too long to be begun, or would not be done before its deadline. What
        comes first is let in, however long it takes. While some are expected back, others have half
        of that wait: there is room left for those who come when they were told to.
        """
        now = time.monotonic()
        request = REQUEST_KEY.get()
        expected = self._line.take(request, now)
        rate = self._crew.rate_of(source.model.name)
        ahead = self._crew.ahead(stream=stream)
        admitted = self.admitted
        excess: float = admitted + images - self._limits.images
        out_of_turn = False
        if rate is not None and admitted:
            too_late = admitted + images - rate * self._limits.timeout
            most_ahead = rate * self._limits.wait
            excess = max(excess, too_late, ahead - most_ahead)
            out_of_turn = not expected and self._line.expects(now) and ahead > most_ahead / 2
        if excess > 0 or out_of_turn:
            # Who has waited for its turn in vain is the next.
            before = 0 if expected else self._line.images
            seconds = self._promise(images, max(excess, before), rate, now)
            raise QueueFull(
                f"no room for {images} images: {admitted} wait or are under way. Try again in "
                f"{seconds} s",
                retry_after=seconds,
            )
        self._line.leave(request)

    def _promise(self, images: int, before: float, rate: float | None, now: float) -> int:
        """Seconds until there is room for ``images``, ``before`` which so many have to be made.

        Were all told the same, they would come back together, and most would be told again.
        """
        if rate is None:
            return 1
        return math.ceil(self._line.add(REQUEST_KEY.get(), images, now, max(1, before / rate))) or 1

    def _submit(
        self,
        source: ImageSource,
        span: range,
        finish: Encode,
        receive: Receive | None,
        turn: object = None,
    ) -> Job:
        now = time.monotonic()
        answered = self._loop.create_future()
        deadline = now + self._limits.timeout
        stream = turn is not None
        job = Job(
            source,
            span,
            finish,
            answered,
            now,
            deadline,
            turn or object(),
            stream,
            REQUEST_ID.get(),
        )
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
            due = time.monotonic() + POLL_SECONDS
            await asyncio.sleep(POLL_SECONDS)
            late = max(0.0, time.monotonic() - due)
            metrics.LOOP_LAG.set(late)
            if late > STANDSTILL:
                self._forgive(late)
            metrics.READY.set(self.ready)
            metrics.QUEUE_IMAGES.set(self.admitted)
            metrics.RATE.set(self.rate or 0)
            try:
                self._look()
            except Exception as error:
                log.error("the engine's supervisor goes on after an error", exc_info=error)

    def _forgive(self, seconds: float) -> None:
        """The process stood still: nobody hangs or is late for that."""
        self._crew.forgive(seconds)
        for job in self._jobs:
            job.deadline += seconds

    def _look(self) -> None:
        now = time.monotonic()
        for worker in self._crew.stalled(since=now - self._limits.stall):
            metrics.THREADS_REPLACED.inc()
            jobs = self._crew.replace(worker)
            what = (
                f"a batch of {jobs[0].source.model.name}, of {names(jobs)}" if jobs else "its proof"
            )
            log.error("a thread hangs in %s; another takes its place", what)
            for job in jobs:
                self._end(job, InferenceFailed("its batch did not come to an end"))
        for job, watch in list(self._jobs.items()):
            if now > job.deadline:
                self._end(job, DeadlineExceeded(f"not done within {self._limits.timeout:g} s"))
            elif callable(watch) and now > job.arrived + POLL_SECONDS:
                # Not before: most are answered sooner, and a watch costs as much as a request.
                self._jobs[job] = asyncio.create_task(self._watch(job, watch))

    async def _watch(self, job: Job, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._end(job, ClientDisconnected("the caller has gone"))


def _answer(outcomes: list[Outcome]) -> None:
    for job, error in outcomes:
        if job.answered.done():
            continue
        if error is None:
            job.answered.set_result(job.results)
        else:
            job.answered.set_exception(error)
