"""Engine: admits requests, runs them in batches, and watches deadlines and disconnects.

The queue is bounded in images, not requests. A free worker thread takes the next batch at once,
from whatever is queued; it never waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from service.engine.admission import AdmissionControl
from service.engine.disconnect import Receive, wait_for_disconnect
from service.engine.limits import UNLIMITED, ImageBudget, Limits
from service.engine.queue import Encode, Job, request_ids
from service.engine.worker import Outcome, Render
from service.engine.worker_pool import HEARTBEAT_SECONDS, WorkerPool
from service.errors import ClientDisconnected, DeadlineExceeded, InferenceFailed, RequestError
from service.inference.source import ImageSource
from service.observability import metrics
from service.observability.logging import REQUEST_ID
from service.observability.timing import Timing

POLL_SECONDS = 0.1
"""Interval of checks of deadlines, clients and worker threads."""
STREAM_PREFETCH = 4
"""Batches queued ahead for each stream and thread: enough to hide the latency to the client."""
PAUSE_SECONDS = 1.0
"""Delay of a check from which on the process counts as paused (SIGSTOP, VM migration)."""

log = logging.getLogger(__name__)


class Engine:
    """Batching engine. ``start`` it in a running event loop; call the rest from that loop only."""

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
        self._pool = WorkerPool(
            render, probe, self._post_results, threads=threads, encoders=encoders
        )
        self._threads = threads
        self._limits = limits
        self._admission = AdmissionControl(limits)
        self._loop: asyncio.AbstractEventLoop
        self._supervisor: asyncio.Task[None]
        self._jobs: dict[Job, Receive | asyncio.Task[None] | None] = {}
        """Unfinished jobs, each with its client's ``receive`` or the task that reads it."""
        self._hung = False
        self._on_hang: Callable[[], object]

    async def start(self, on_hang: Callable[[], object] = lambda: None) -> None:
        """Start the worker threads and wait until all are warmed up.

        ``on_hang`` is called once, if a thread hangs. The others continue, but the engine is not
        ready any more: as Python cannot end a thread, its owner must end the process.
        """
        self._on_hang = on_hang
        self._loop = asyncio.get_running_loop()
        self._pool.start()
        while not self._pool.warmed_up:
            await asyncio.sleep(0.001)
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the worker threads; queued images are not computed."""
        self._supervisor.cancel()
        closed = asyncio.Event()

        def close() -> None:
            self._pool.close()
            self._loop.call_soon_threadsafe(closed.set)

        # In a new thread: all threads of asyncio's own pool may hang.
        threading.Thread(target=close, name="end", daemon=True).start()
        await closed.wait()

    @property
    def fault(self) -> str | None:
        """Reason why the engine is not ready, None if it is.

        Ready: no worker thread hangs, and one has sent a heartbeat within ``hang_timeout``.
        """
        if self._hung:
            return "a worker thread hangs"
        timeout = max(self._limits.hang_timeout, 2 * HEARTBEAT_SECONDS)
        if time.monotonic() - self._pool.last_heartbeat() < timeout:
            return None
        return f"no worker thread has sent a heartbeat within {timeout:g} s"

    @property
    def queued_images(self) -> int:
        """Images queued or running."""
        return self._pool.images

    @property
    def images_per_second(self) -> float | None:
        """Measured throughput of the model used last; None before the first batch."""
        return self._pool.latest_throughput

    async def run(
        self,
        source: ImageSource,
        count: int,
        encode: Encode,
        receive: Receive | None = None,
        budget: ImageBudget = UNLIMITED,
    ) -> tuple[list[Any], Timing]:
        """Compute the images at ``range(count)`` of ``source``; return ``encode`` of each.

        Raises ``QueueFull`` at once, ``DeadlineExceeded``, ``ClientDisconnected`` if ``receive``
        reports it, ``InferenceFailed``, and whatever ``encode`` or ``budget`` raises.
        """
        self._admit(count, source, stream=False)
        budget.charge(count)
        job = self._submit(source, range(count), encode, receive)
        return await self._result(job), job.timing

    def stream(
        self, source: ImageSource, count: int, encode: Encode, budget: ImageBudget = UNLIMITED
    ) -> AsyncGenerator[list[Any], None]:
        """As ``run``, batch by batch; see ``stream_batches``."""
        size = source.model.largest_batch
        spans = (range(first, min(first + size, count)) for first in range(0, count, size))
        return self.stream_batches(((source, span) for span in spans), encode, budget)

    async def stream_batches(
        self,
        batches: Iterable[tuple[ImageSource, range] | None],
        encode: Encode,
        budget: ImageBudget = UNLIMITED,
    ) -> AsyncGenerator[list[Any], None]:
        """Results of ``encode`` for the images of each batch, in order.

        Backpressure: at most ``STREAM_PREFETCH`` batches for each thread are computed ahead of the
        consumer. ``batches`` gives None if the next batch depends on results not yet consumed.

        Only the first batch may raise ``QueueFull`` or an error of ``budget``; the others wait for
        room in the queue and in the budget.
        """
        group = object()
        ahead: deque[Job] = deque()
        admitted = False
        try:
            for batch in batches:
                if batch is not None:
                    source, span = batch
                    if not admitted:
                        self._admit(len(span), source, stream=True)
                        budget.charge(len(span))
                        admitted = True
                    else:
                        while not self._admission.has_room(
                            len(span), queued=self.queued_images, has_more=bool(ahead)
                        ):
                            if ahead and ahead[0].future.done():
                                yield await self._result(ahead.popleft())
                            else:
                                await asyncio.sleep(POLL_SECONDS / 10)
                        while (seconds := budget.charge_or_wait(len(span))) > 0:
                            if ahead:  # finished batches do not wait for the budget
                                yield await self._result(ahead.popleft())
                            else:
                                await asyncio.sleep(seconds)
                    ahead.append(self._submit(source, span, encode, None, group))
                if batch is None or len(ahead) == STREAM_PREFETCH * self._threads:
                    yield await self._result(ahead.popleft())
            while ahead:
                yield await self._result(ahead.popleft())
        finally:
            for job in ahead:
                self._end(job)

    def reject_if_full(self) -> None:
        """Raise ``QueueFull`` if a request for one image would be rejected, whatever its kind."""
        self._admission.admit(1, self._pool.lightest_load())

    def _admit(self, images: int, source: ImageSource, *, stream: bool) -> None:
        """Raise ``QueueFull`` unless ``images`` more may be queued."""
        self._admission.admit(images, self._pool.load(source.model.name, stream=stream))

    def _submit(
        self,
        source: ImageSource,
        span: range,
        encode: Encode,
        receive: Receive | None,
        stream_group: object = None,
    ) -> Job:
        now = time.monotonic()
        job = Job(
            source,
            span,
            encode,
            future=self._loop.create_future(),
            arrived=now,
            deadline=now + self._limits.timeout,
            group=stream_group or object(),
            stream=stream_group is not None,
            request_id=REQUEST_ID.get(),
        )
        self._jobs[job] = receive
        self._pool.add(job)
        return job

    async def _result(self, job: Job) -> list[Any]:
        try:
            return await job.future
        finally:
            self._end(job)

    def _end(self, job: Job, error: RequestError | None = None) -> None:
        """Stop computing a job; ``error`` is raised in the task that waits for it."""
        watch = self._jobs.pop(job, None)
        if isinstance(watch, asyncio.Task):
            watch.cancel()
        if not job.finished:
            self._pool.drop(job)
        if not job.future.done():
            if error is None:
                job.future.cancel()
            else:
                job.future.set_exception(error)
        if not job.future.cancelled():
            job.future.exception()  # asyncio warns of exceptions that are never retrieved

    def _post_results(self, outcomes: list[Outcome]) -> None:
        """Resolve the futures of finished jobs. Called on a worker thread."""
        self._loop.call_soon_threadsafe(_resolve_futures, outcomes)

    async def _supervise(self) -> None:
        resumed = -math.inf
        while True:
            due = time.monotonic() + POLL_SECONDS
            await asyncio.sleep(POLL_SECONDS)
            now = time.monotonic()
            metrics.LOOP_LAG.set(max(0.0, now - due))
            if now - due > PAUSE_SECONDS:
                resumed = now
                continue
            metrics.READY.set(self.fault is None)
            metrics.QUEUE_IMAGES.set(self.queued_images)
            metrics.RATE.set(self.images_per_second or 0)
            try:
                if now - resumed > self._limits.hang_timeout:
                    self._check_workers()
                self._check_deadlines()
            except Exception as error:
                log.error("check of worker threads and deadlines failed", exc_info=error)

    def _check_workers(self) -> None:
        """Fail the jobs of worker threads that hang, or all jobs if no thread is left."""
        limit = self._limits.hang_timeout
        for jobs in self._pool.find_hung(since=time.monotonic() - limit):
            metrics.THREADS_HUNG.inc()
            where = (
                f"a batch of {jobs[0].source.model.name} (requests {request_ids(jobs)})"
                if jobs
                else "its warm-up"
            )
            log.error("worker thread hung in %s", where)
            for job in jobs:
                self._end(job, InferenceFailed(f"the batch did not finish within {limit:g} s"))
            if not self._hung:
                self._hung = True
                self._on_hang()
        if not self._pool.can_compute:
            for job in list(self._jobs):
                self._end(job, InferenceFailed("all worker threads hang"))

    def _check_deadlines(self) -> None:
        """Fail jobs past their deadline, and start to watch the clients of slow ones."""
        now = time.monotonic()
        for job, receive in list(self._jobs.items()):
            if now > job.deadline:
                self._end(job, DeadlineExceeded(f"not done within {self._limits.timeout:g} s"))
            elif callable(receive) and now > job.arrived + POLL_SECONDS:
                # Not at once: most jobs finish sooner, and a watch costs as much as a request.
                self._jobs[job] = asyncio.create_task(self._end_on_disconnect(job, receive))

    async def _end_on_disconnect(self, job: Job, receive: Receive) -> None:
        await wait_for_disconnect(receive)
        self._end(job, ClientDisconnected("the client disconnected"))


def _resolve_futures(outcomes: list[Outcome]) -> None:
    for job, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(job.results)
        else:
            job.future.set_exception(error)
