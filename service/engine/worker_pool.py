"""Worker pool: threads that compute and encode batches, with heartbeats and hang detection.

ONNX Runtime and the image encoders release the GIL, so threads scale like processes here. Each
thread encodes what it has computed. On a GPU, one thread computes while others encode.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import Histogram

from service.core.image_info import ImageInfo
from service.core.process import COMPUTE_THREAD
from service.engine.admission import Load
from service.engine.queue import BatchSlice, FairQueue, Job, request_ids
from service.engine.throughput import CostTable, ImageCost, throughput
from service.engine.worker import Outcome, Render, Worker
from service.errors import InferenceFailed
from service.observability import metrics

NICENESS = 5
"""Niceness of computing threads, so that the event loop gets a core under overload: at three times
the capacity, goodput was 0.84 of it, and 0.67 without."""
HEARTBEAT_SECONDS = 1.0
"""Interval of heartbeats of an idle thread, and of retries of a failed warm-up."""

SliceResult = tuple[BatchSlice, list[Any] | Exception]
"""A job's part of a batch, with its results or the error of its encoder."""

log = logging.getLogger(__name__)


class WorkerPool:
    """Queue of jobs and the threads that complete them."""

    def __init__(
        self,
        render: Render,
        probe: Callable[[], object],
        on_complete: Callable[[list[Outcome]], None],
        *,
        threads: int,
        concurrent_batches: int,
    ) -> None:
        """``threads`` compute and encode; at most ``concurrent_batches`` compute at a time.

        ``probe`` computes one small image: the warm-up of a thread. ``on_complete`` is called on a
        worker thread with all jobs that a batch has finished.
        """
        self._render = render
        self._probe = probe
        self._on_complete = on_complete
        self._size = threads
        self._concurrent_batches = concurrent_batches
        self._threads: dict[Worker, threading.Thread] = {}
        # The lock guards all that follows.
        self._lock = threading.RLock()
        self._work_ready = threading.Condition(self._lock)
        self._queue = FairQueue()
        self._in_flight = 0
        """Images in batches."""
        self._computing = 0
        """Batches being computed."""
        self._idle = 0
        self._closed = False
        self._costs = CostTable()

    def start(self) -> None:
        """Start all threads; see ``warmed_up``."""
        for _ in range(self._size):
            worker = Worker()
            # A daemon: a hung thread must not keep the process from ending.
            thread = threading.Thread(
                target=self._work, args=(worker,), name=COMPUTE_THREAD, daemon=True
            )
            self._threads[worker] = thread
            thread.start()

    def close(self) -> None:
        """End the threads after their current batches; queued images are not computed."""
        with self._lock:
            self._closed = True
            self._work_ready.notify_all()
        for thread in self._threads.values():
            thread.join(HEARTBEAT_SECONDS)

    @property
    def images(self) -> int:
        """Images queued or running."""
        with self._lock:
            return self._queue.images + self._in_flight

    def load(self, model: str, *, stream: bool) -> Load:
        """Load that a new request, or a new stream, for images of ``model`` meets."""
        with self._lock:
            return Load(
                queued=self._queue.images + self._in_flight,
                ahead=self._queue.images_ahead(stream=stream) + self._in_flight,
                throughput=self._throughput_of(self._costs.of(model)),
            )

    def lightest_load(self) -> Load:
        """Load that any request meets at least: that of the fastest model, or of a stream."""
        with self._lock:
            return Load(
                queued=self._queue.images + self._in_flight,
                ahead=min(self._queue.images_ahead(stream=stream) for stream in (False, True))
                + self._in_flight,
                throughput=self._throughput_of(self._costs.lowest),
            )

    @property
    def warmed_up(self) -> bool:
        """True if every thread has computed something."""
        return all(worker.last_heartbeat is not None for worker in self._threads)

    @property
    def latest_throughput(self) -> float | None:
        """Images per second of the model used last; None before the first batch."""
        return self._throughput_of(self._costs.latest)

    def _throughput_of(self, cost: ImageCost | None) -> float | None:
        return None if cost is None else throughput(cost, self._size, self._concurrent_batches)

    def last_heartbeat(self) -> float:
        """Latest heartbeat of a thread; minus infinity if there is none."""
        return max(worker.last_heartbeat or -math.inf for worker in self._threads)

    def add(self, job: Job) -> None:
        """Queue a job."""
        with self._lock:
            self._queue.add(job)
            self._work_ready.notify(self._queue.images)

    def drop(self, job: Job) -> None:
        """Remove a job from the queue; results of its running batches are dropped."""
        with self._lock:
            self._queue.drop(job)

    def find_hung(self, since: float) -> list[list[Job]]:
        """Jobs of each worker thread that died, or hangs: in one batch or warm-up before ``since``.

        Each thread is found once. Python cannot end it. Its batch stays in ``images``.
        """
        with self._lock:
            found = [
                worker
                for worker, thread in self._threads.items()
                if not worker.hung
                and (
                    (worker.busy_since is not None and worker.busy_since < since)
                    or not thread.is_alive()
                )
            ]
            for worker in found:
                worker.hung = True
            return [[each.job for each in worker.batch] for worker in found]

    @property
    def can_compute(self) -> bool:
        """False if all threads hang, or as many in the network as may compute at a time."""
        hung = [worker.computing for worker in self._threads if worker.hung]
        return len(hung) < self._size and sum(hung) < self._concurrent_batches

    # The methods below run on the worker threads.

    def _work(self, worker: Worker) -> None:
        if sys.platform == "linux":  # elsewhere, it would be the priority of the process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while self._warm_up(worker):
            succeeded = True
            while succeeded:
                with self._lock:
                    exclusive = self._take_batch(worker)
                if not worker.batch:
                    return
                succeeded = self._run_batch(worker, exclusive)

    def _warm_up(self, worker: Worker) -> bool:
        """Retry the probe until it succeeds: at start, and after a failed batch.

        Returns False if the pool closes.
        """
        repeated = worker.last_heartbeat is not None
        worker.last_heartbeat = None
        while True:
            started = time.monotonic()
            worker.busy_since = started if repeated else None
            try:
                self._probe()
            except Exception as error:
                worker.busy_since = None
                log.error(
                    "worker thread cannot compute; retrying in %g s",
                    HEARTBEAT_SECONDS,
                    exc_info=error,
                )
                time.sleep(HEARTBEAT_SECONDS)
            else:
                worker.last_heartbeat, worker.busy_since = time.monotonic(), None
                with self._lock:
                    self._costs.record_warm_up(worker.last_heartbeat - started)
                return True
            if self._closed:
                return False

    def _take_batch(self, worker: Worker) -> bool:
        """Wait for a batch and store it in ``worker.batch``; it stays empty if the thread must end.

        Returns True if the batch is one image and nothing else is queued or running.
        """
        while True:
            worker.last_heartbeat = time.monotonic()
            if self._closed:
                return False
            waiting = self._queue.images
            if free := self._concurrent_batches - self._computing:
                # An equal share for each idle thread, so that none idles while others work.
                worker.batch = self._queue.take(math.ceil(waiting / min(self._idle + 1, free)))
            if worker.batch:
                worker.busy_since = worker.last_heartbeat
                worker.computing = True
                self._computing += 1
                self._in_flight += _size(worker.batch)
                return waiting == 1 and self._idle == self._size - 1
            self._idle += 1
            self._work_ready.wait(HEARTBEAT_SECONDS)
            self._idle -= 1

    def _run_batch(self, worker: Worker, exclusive: bool) -> bool:
        """Compute and encode a batch; an error fails the jobs in it. Returns True on success."""
        batch = worker.batch
        try:
            results = self._results(worker, exclusive)
        except Exception as error:
            metrics.BATCHES_FAILED.inc()
            requests = request_ids(each.job for each in batch)
            log.error("batch failed (requests %s)", requests, exc_info=error)
            if not isinstance(error, InferenceFailed):
                error = InferenceFailed("the model could not be run; the service's log says why")
            self._complete(worker, [(each, error) for each in batch])
            return False
        self._complete(worker, results)
        return True

    def _results(self, worker: Worker, exclusive: bool) -> list[SliceResult]:
        batch = worker.batch
        started = time.monotonic()
        for each in batch:
            if not each.job.timing.queue:
                each.job.timing.queue = started - each.job.arrived
                if not each.job.stream:  # batches of a stream also wait for the client
                    metrics.QUEUE_TIME.observe(each.job.timing.queue)
        try:
            chunks = [(each.job.source, each.chunk) for each in batch]
            slices = self._render(chunks, exclusive=exclusive)
        finally:
            self._finish_computing(worker)
        computed = before = time.monotonic()
        results: list[SliceResult] = []
        for each, (infos, pixels) in zip(batch, slices, strict=True):
            results.append((each, _encode_slice(each.job, infos, pixels)))
            now = time.monotonic()
            each.job.timing.inference += computed - started
            each.job.timing.encode += now - before
            before = now
        self._measure(batch, computed - started, before - computed, exclusive)
        return results

    def _finish_computing(self, worker: Worker) -> None:
        with self._lock:
            worker.computing = False
            self._computing -= 1
            if self._concurrent_batches < self._size and self._queue.images:
                self._work_ready.notify()

    def _measure(
        self, batch: list[BatchSlice], compute: float, encode: float, exclusive: bool
    ) -> None:
        """Record the seconds that a batch took."""
        model, images = batch[0].job.source.model, _size(batch)
        batch_images, inference_time, encode_time = _batch_metrics(model.name)
        batch_images.observe(images)
        inference_time.observe(compute)
        encode_time.observe(encode)
        threads = self._concurrent_batches if exclusive else 1
        new = ImageCost(threads * compute / images, encode / images, images)
        with self._lock:
            self._costs.record(model.name, new, model.largest_batch)

    def _complete(self, worker: Worker, results: list[SliceResult]) -> None:
        """Store the results of a batch and report the jobs that it finishes."""
        outcomes: list[Outcome] = []
        with self._lock:
            self._in_flight -= _size(worker.batch)
            worker.batch, worker.busy_since = [], None
            for (job, chunk), result in results:
                if job.finished:
                    continue
                if isinstance(result, Exception):
                    self._queue.drop(job)
                    outcomes.append((job, result))
                else:
                    job.store(chunk, result)
                    if not job.missing:
                        job.finished = True
                        outcomes.append((job, None))
        if outcomes:
            self._on_complete(outcomes)


def _encode_slice(job: Job, infos: list[ImageInfo], pixels: Any) -> list[Any] | Exception:
    """Results of a job's images, or the error of its encoder; nothing if the job is finished."""
    if job.finished:
        return []
    try:
        return [job.encode(*each) for each in zip(infos, pixels, strict=True)]
    except Exception as error:
        return error


@functools.lru_cache(1024)
def _batch_metrics(model: str) -> tuple[Histogram, Histogram, Histogram]:
    """Metrics of a model's batches. Cached, as finding them takes longer than to observe."""
    kinds = (metrics.BATCH_IMAGES, metrics.INFERENCE_TIME, metrics.ENCODE_TIME)
    images, inference, encode = (kind.labels(model) for kind in kinds)
    return images, inference, encode


def _size(batch: list[BatchSlice]) -> int:
    return sum(len(each.chunk) for each in batch)
