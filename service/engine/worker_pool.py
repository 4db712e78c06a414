"""Worker pool: threads that compute and encode batches, with heartbeats and hang detection.

ONNX Runtime and the image encoders release the GIL, so threads scale like processes here. On a CPU,
each thread encodes what it has computed. On a GPU, one thread computes and others encode.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from prometheus_client import Histogram

from service.core.image_info import ImageInfo
from service.core.process import COMPUTE_THREAD
from service.engine.admission import Load
from service.engine.queue import BatchSlice, FairQueue, Job, request_ids
from service.engine.throughput import CostTable, ImageCost, throughput
from service.engine.worker import Outcome, Render, Rendered, RenderedSlice, Worker
from service.errors import InferenceFailed
from service.observability import metrics

NICENESS = 5
"""Niceness of computing threads, so that the event loop gets a core under overload: at three times
the capacity, goodput was 0.84 of it, and 0.67 without."""
HEARTBEAT_SECONDS = 1.0
"""Interval of heartbeats of an idle thread, and of retries of a failed warm-up."""

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
        encoders: int = 0,
    ) -> None:
        """``threads`` compute; ``encoders`` only encode, and if 0, the others encode, too.

        ``probe`` computes one small image: the warm-up of a thread. ``on_complete`` is called on a
        worker thread with all jobs that a batch has finished.
        """
        self._render = render
        self._probe = probe
        self._on_complete = on_complete
        self._size = threads
        self._encoders = encoders
        self._threads: dict[Worker, threading.Thread] = {}
        # The lock guards all that follows.
        lock = threading.RLock()
        self._work_ready = threading.Condition(lock)
        self._handover = threading.Condition(lock)
        self._rendered: deque[Rendered] = deque()
        """Queue for encoding: at most one batch for each encoder."""
        self._queue = FairQueue()
        self._in_flight = 0
        """Images in batches."""
        self._idle = 0
        self._closed = False
        self._costs = CostTable()
        self._lock = lock

    def start(self) -> None:
        """Start all threads; see ``warmed_up``."""
        for number in range(self._size + self._encoders):
            self._start_worker(encodes=number >= self._size)

    def close(self) -> None:
        """End the threads after their current batches; queued images are not computed."""
        with self._lock:
            self._closed = True
            self._work_ready.notify_all()
            self._handover.notify_all()
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
        """True if every thread that computes has computed something."""
        return all(worker.last_heartbeat is not None for worker in self._threads)

    @property
    def latest_throughput(self) -> float | None:
        """Images per second of the model used last; None before the first batch."""
        return self._throughput_of(self._costs.latest)

    def _throughput_of(self, cost: ImageCost | None) -> float | None:
        return None if cost is None else throughput(cost, self._size, self._encoders)

    def last_heartbeat(self) -> float:
        """Latest heartbeat of a thread that computes; minus infinity if there is none."""
        beats = [worker.last_heartbeat for worker in self._threads if not worker.encodes]
        return max(beat or -math.inf for beat in beats)

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
        """False if all threads that compute hang, or all that encode."""
        working = [worker.encodes for worker in self._threads if not worker.hung]
        return False in working and (True in working or not self._encoders)

    def _start_worker(self, *, encodes: bool) -> None:
        worker = Worker(encodes)
        loop, name = (
            (self._encode_loop, "encode") if encodes else (self._compute_loop, COMPUTE_THREAD)
        )
        # A daemon: a hung thread must not keep the process from ending.
        thread = threading.Thread(target=loop, args=(worker,), name=name, daemon=True)
        self._threads[worker] = thread
        thread.start()

    # The methods below run on the worker threads.

    def _compute_loop(self, worker: Worker) -> None:
        if sys.platform == "linux":  # elsewhere, it would be the priority of the process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while self._warm_up(worker):
            succeeded = True
            while succeeded:
                with self._lock:
                    exclusive = self._take_batch(worker)
                if not worker.batch:
                    return
                succeeded = self._fail_batch_on_error(self._compute, worker, exclusive)

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
            # An equal share for each idle thread, so that none idles while others work.
            worker.batch = self._queue.take(math.ceil(waiting / (self._idle + 1)))
            if worker.batch:
                worker.busy_since = worker.last_heartbeat
                self._in_flight += _size(worker.batch)
                return waiting == 1 and self._idle == self._size - 1
            self._idle += 1
            self._work_ready.wait(HEARTBEAT_SECONDS)
            self._idle -= 1

    def _fail_batch_on_error(
        self, step: Callable[..., None], worker: Worker, *arguments: Any
    ) -> bool:
        """Run one step of a batch; an error fails the jobs in it. Returns True on success."""
        batch = worker.batch
        try:
            step(worker, *arguments)
        except Exception as error:
            metrics.BATCHES_FAILED.inc()
            requests = request_ids(each.job for each in batch)
            log.error("batch failed (requests %s)", requests, exc_info=error)
            if not isinstance(error, InferenceFailed):
                error = InferenceFailed("the model could not be run; the service's log says why")
            self._complete(worker, [(each, error) for each in batch])
            return False
        return True

    def _compute(self, worker: Worker, exclusive: bool) -> None:
        started = time.monotonic()
        for each in worker.batch:
            if not each.job.timing.queue:
                each.job.timing.queue = started - each.job.arrived
                if not each.job.stream:  # batches of a stream also wait for the client
                    metrics.QUEUE_TIME.observe(each.job.timing.queue)
        batch = [(each.job.source, each.chunk) for each in worker.batch]
        slices = self._render(batch, exclusive=exclusive)
        cost = ImageCost(compute=time.monotonic() - started, encode=0)
        model = batch[0][0].model.name
        batch_images, inference_time, _ = _batch_metrics(model)
        batch_images.observe(_size(worker.batch))
        inference_time.observe(cost.compute)
        if self._encoders:
            self._queue_for_encoding(worker, slices, cost, exclusive)
        else:
            self._encode(worker, slices, cost, exclusive)

    def _queue_for_encoding(
        self, worker: Worker, slices: list[RenderedSlice], cost: ImageCost, exclusive: bool
    ) -> None:
        """Wait for room in the queue of the encoders, then add a batch to it."""
        with self._lock:
            rendered = Rendered(worker.batch, slices, cost, exclusive)
            worker.batch, worker.busy_since = [], None
            while len(self._rendered) == self._encoders and not self._closed:
                worker.last_heartbeat = time.monotonic()  # if one hangs, it is an encoder
                self._handover.wait(HEARTBEAT_SECONDS)
            self._rendered.append(rendered)
            self._handover.notify_all()

    def _encode_loop(self, worker: Worker) -> None:
        while True:
            with self._lock:
                worker.last_heartbeat = time.monotonic()
                if self._closed:
                    return
                if not self._rendered:
                    self._handover.wait(HEARTBEAT_SECONDS)
                    continue
                rendered = self._rendered.popleft()
                worker.batch, worker.busy_since = rendered.batch, worker.last_heartbeat
                self._handover.notify_all()
            self._fail_batch_on_error(self._encode, worker, *rendered[1:])

    def _encode(
        self, worker: Worker, slices: list[RenderedSlice], cost: ImageCost, exclusive: bool
    ) -> None:
        results: list[tuple[BatchSlice, list[Any] | Exception]] = []
        images = _size(worker.batch)
        started = before = time.monotonic()
        for each, (infos, pixels) in zip(worker.batch, slices, strict=True):
            results.append((each, _encode_slice(each.job, infos, pixels)))
            now = time.monotonic()
            each.job.timing.inference += cost.compute
            each.job.timing.encode += now - before
            before = now
        model = worker.batch[0].job.source.model
        *_, encode_time = _batch_metrics(model.name)
        encode_time.observe(before - started)
        self._complete(worker, results)
        threads = self._size if exclusive else 1
        new = ImageCost(threads * cost.compute / images, (before - started) / images, images)
        with self._lock:
            self._costs.record(model.name, new, model.largest_batch)

    def _complete(
        self, worker: Worker, results: list[tuple[BatchSlice, list[Any] | Exception]]
    ) -> None:
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
