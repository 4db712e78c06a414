"""The threads that compute images: each takes the next batch as soon as it is free.

ONNX Runtime and the encoders let go of the interpreter's lock, so threads are as good as processes
here. On a CPU, a thread encodes what it has computed. A GPU has one thread that feeds it, and
others encode.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from service.core.image_info import ImageInfo
from service.core.process import COMPUTE_THREAD
from service.engine.queue import BatchSlice, FairQueue, Job, names
from service.errors import InferenceFailed
from service.inference.model import Model
from service.inference.seeds import ImageSource
from service.observability import metrics

HEARTBEAT_SECONDS = 1.0
"""Seconds after which a thread with nothing to do says that it lives."""
MOMENT = 1e-9
"""Seconds; nothing takes less."""
SMOOTHING = 0.1
"""Weight of a full batch in the measured cost of an image; one that is not full has its share."""

Outcome = tuple[Job, Exception | None]
"""A job that has come to its end: with all its results, or with an error."""

log = logging.getLogger(__name__)


class Render(Protocol):
    """Computes a batch: for each of its pieces, frames and images ``[N, H, W, channels]``."""

    def __call__(
        self, batch: Sequence[tuple[ImageSource, range]], *, alone: bool
    ) -> list[tuple[list[ImageInfo], Any]]: ...


@dataclass(eq=False)
class Worker:
    encodes: bool = False
    """It only encodes."""
    beat: float | None = None
    """When it last took or looked for work; None until it has proven that it can compute."""
    batch: list[BatchSlice] = field(default_factory=list)
    """What it is at."""
    proves: float | None = None
    """Since when it tries again whether it can compute, after a batch has failed."""
    given_up: bool = False


@dataclass(frozen=True)
class ImageCost:
    """Seconds for an image, on one thread."""

    compute: float
    encode: float
    images: int = 1
    """That were measured."""

    def with_batch(self, new: ImageCost, largest: int) -> ImageCost:
        """The mean, in which what is long ago counts less and less."""
        images = self.images + new.images
        weight = max(SMOOTHING * new.images / largest, new.images / images)
        return ImageCost(
            self.compute + weight * (new.compute - self.compute),
            self.encode + weight * (new.encode - self.encode),
            images,
        )


class Rendered(NamedTuple):
    """A batch on its way from a thread that computes to one that encodes."""

    batch: list[BatchSlice]
    made: list[tuple[list[ImageInfo], Any]]
    cost: ImageCost
    alone: bool


class WorkerPool:
    """``deliver`` is called on the threads, with all jobs that a batch has brought to their end."""

    def __init__(
        self,
        render: Render,
        probe: Callable[[], object],
        deliver: Callable[[list[Outcome]], None],
        *,
        threads: int,
        encoders: int = 0,
    ) -> None:
        """``encoders``: threads that encode, where those that compute do not.

        ``probe`` computes something small: a thread that has done it can do its work.
        """
        self._render = render
        self._probe = probe
        self._deliver = deliver
        self._size = threads
        self._encoders = encoders
        self._threads: dict[Worker, threading.Thread] = {}
        # All below is touched with this lock only.
        lock = threading.RLock()
        self._lock = threading.Condition(lock)
        self._handover = threading.Condition(lock)
        self._rendered: deque[Rendered] = deque()
        """What the encoders begin next: at most one batch for each."""
        self._backlog = FairQueue()
        self._under_way = 0
        self._idle = 0
        self._closed = False
        self._first: ImageCost | None = None
        """Of the probe: what is known before anything was asked for."""
        self._costs: dict[str, ImageCost] = {}
        """Of each model, by its name."""
        self._last: ImageCost | None = None
        """Of the model that was used last."""

    def start(self) -> None:
        for number in range(self._size + self._encoders):
            self._hire(encodes=number >= self._size)

    def close(self) -> None:
        """End the threads after the batch they are at; what still waits is not computed."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            self._handover.notify_all()
        for thread in self._threads.values():
            thread.join(HEARTBEAT_SECONDS)

    @property
    def images(self) -> int:
        """All that wait or are under way."""
        with self._lock:
            return self._backlog.images + self._under_way

    def ahead(self, *, stream: bool) -> int:
        """Images that come before those of a new request, or stream."""
        with self._lock:
            return self._backlog.ahead(stream=stream) + self._under_way

    @property
    def proven(self) -> bool:
        """Every thread that computes has computed something."""
        return all(worker.beat is not None for worker in self._threads)

    @property
    def rate(self) -> float | None:
        """Images per second that can be made of the model that was used last; None before any."""
        return self._rate(self._last)

    def rate_of(self, model: str) -> float | None:
        """Images per second that can be made of a model.

        Of one that was not used yet, as of the slowest that was, or of the probe.
        """
        with self._lock:
            known = self._costs.get(model) or max(
                self._costs.values(), key=lambda cost: cost.compute + cost.encode, default=None
            )
        return self._rate(known or self._first)

    def _rate(self, cost: ImageCost | None) -> float | None:
        if cost is None:
            return None
        if not self._encoders:
            return self._size / (cost.compute + cost.encode)
        return min(self._size / cost.compute, self._encoders / max(cost.encode, MOMENT))

    def last_beat(self) -> float:
        """When a thread that computes last said that it lives, by ``time.monotonic``.

        Never is minus infinity.
        """
        beats = [worker.beat for worker in self._threads if not worker.encodes]
        return max(beat or -math.inf for beat in beats)

    def add(self, job: Job) -> None:
        """Have a job computed."""
        with self._lock:
            self._backlog.add(job)
            self._lock.notify(self._backlog.images)

    def drop(self, job: Job) -> None:
        """Compute no more of a job; what is under way goes nowhere."""
        with self._lock:
            self._backlog.drop(job)

    def stalled(self, since: float) -> list[Worker]:
        """The threads that have been at one batch, or one proof, since then, or are no more.

        The first proof is not one that counts: there would be a new thread for each that hangs.
        """
        with self._lock:
            return [
                worker
                for worker, thread in self._threads.items()
                if (worker.batch and worker.beat is not None and worker.beat < since)
                or (worker.proves is not None and worker.proves < since)
                or not thread.is_alive()
            ]

    def forgive(self, seconds: float) -> None:
        """Nobody could do anything for so long."""
        now = time.monotonic()
        with self._lock:
            for worker in self._threads:
                if worker.beat is not None:
                    worker.beat = min(now, worker.beat + seconds)
                if worker.proves is not None:
                    worker.proves = min(now, worker.proves + seconds)

    def replace(self, worker: Worker) -> list[Job]:
        """Give up a thread that hangs, for another; returns the jobs it was at.

        Nothing can end the thread itself: should it ever return, it ends.
        """
        with self._lock:
            worker.given_up = True
            self._under_way -= _size(worker.batch)
            jobs = [piece.job for piece in worker.batch]
        del self._threads[worker]
        self._hire(encodes=worker.encodes)
        return jobs

    def _hire(self, *, encodes: bool) -> None:
        worker = Worker(encodes)
        work, name = (self._work_off, "encode") if encodes else (self._work, COMPUTE_THREAD)
        # A daemon, for one that hangs must not keep the process from ending.
        thread = threading.Thread(target=work, args=(worker,), name=name, daemon=True)
        self._threads[worker] = thread
        thread.start()

    # On the threads.

    def _work(self, worker: Worker) -> None:
        while self._prove(worker):
            done = True
            while done:
                with self._lock:
                    alone = self._take_batch(worker)
                if not worker.batch:
                    return
                done = self._guarded(self._compute, worker, alone)

    def _prove(self, worker: Worker) -> bool:
        """Wait until the thread can compute: at its start, and again after a batch has failed.

        False at the end.
        """
        again = worker.beat is not None
        worker.batch, worker.beat = [], None
        while True:
            worker.proves = time.monotonic() if again else None
            started = time.monotonic()
            try:
                self._probe()
            except Exception as error:
                log.error("a thread cannot compute, and tries again", exc_info=error)
                time.sleep(HEARTBEAT_SECONDS)
            else:
                worker.beat, worker.proves = time.monotonic(), None
                self._first = self._first or ImageCost(max(worker.beat - started, MOMENT), 0)
                return True
            if self._closed or worker.given_up:
                return False

    def _take_batch(self, worker: Worker) -> bool:
        """Wait for a batch; none at the end. Returns whether it is one image and all there is."""
        worker.batch = []
        while True:
            worker.beat = time.monotonic()
            if self._closed or worker.given_up:
                return False
            waiting = self._backlog.images
            # A share for each thread that has nothing to do, so that none idles while others work.
            worker.batch = self._backlog.take(math.ceil(waiting / (self._idle + 1)))
            if worker.batch:
                self._under_way += _size(worker.batch)
                return waiting == 1 and self._idle == self._size - 1
            self._idle += 1
            self._lock.wait(HEARTBEAT_SECONDS)
            self._idle -= 1

    def _guarded(self, step: Callable[..., None], worker: Worker, *rest: Any) -> bool:
        """One step of a batch; what it raises fails the requests in it, and nothing else."""
        batch = worker.batch
        try:
            step(worker, *rest)
        except Exception as error:
            metrics.BATCHES_FAILED.inc()
            requests = names(piece.job for piece in batch)
            log.error("a batch failed, of %s", requests, exc_info=error)
            if not isinstance(error, InferenceFailed):
                error = InferenceFailed("the model could not be run; the service's log says why")
            self._hand_on(worker, [(piece, error) for piece in batch])
            return False
        return True

    def _compute(self, worker: Worker, alone: bool) -> None:
        started = time.monotonic()
        for piece in worker.batch:
            if not piece.job.timing.queue:
                piece.job.timing.queue = started - piece.job.arrived
                if not piece.job.stream:  # whose next batch waits for its reader, too
                    metrics.QUEUE_TIME.observe(piece.job.timing.queue)
        sources = [(piece.job.source, piece.chunk) for piece in worker.batch]
        rendered = self._render(sources, alone=alone)
        cost = ImageCost(compute=time.monotonic() - started, encode=0)
        model = sources[0][0].model.name
        metrics.BATCH_IMAGES.labels(model).observe(_size(worker.batch))
        metrics.INFERENCE_TIME.labels(model).observe(cost.compute)
        if self._encoders:
            self._pass_on(worker, rendered, cost, alone)
        else:
            self._encode(worker, rendered, cost, alone)

    def _pass_on(
        self, worker: Worker, made: list[tuple[list[ImageInfo], Any]], cost: ImageCost, alone: bool
    ) -> None:
        """Leave a batch to the encoders, as soon as they have room for it."""
        with self._lock:
            if worker.given_up:  # and so have its images been
                return
            rendered = Rendered(worker.batch, made, cost, alone)
            worker.batch = []
            while len(self._rendered) == self._encoders and not self._closed:
                worker.beat = time.monotonic()  # it is not this thread that hangs
                self._handover.wait(HEARTBEAT_SECONDS)
            self._rendered.append(rendered)
            self._handover.notify_all()

    def _work_off(self, worker: Worker) -> None:
        """Encode what others have computed."""
        while True:
            with self._lock:
                worker.beat = time.monotonic()
                if self._closed or worker.given_up:
                    return
                if not self._rendered:
                    self._handover.wait(HEARTBEAT_SECONDS)
                    continue
                rendered = self._rendered.popleft()
                worker.batch = rendered.batch
                self._handover.notify_all()
            self._guarded(self._encode, worker, *rendered[1:])

    def _encode(
        self,
        worker: Worker,
        rendered: list[tuple[list[ImageInfo], Any]],
        cost: ImageCost,
        alone: bool,
    ) -> None:
        results: list[tuple[BatchSlice, list[Any] | Exception]] = []
        made = _size(worker.batch)
        started = before = time.monotonic()
        for piece, (frames, images) in zip(worker.batch, rendered, strict=True):
            results.append((piece, _finish(piece.job, frames, images)))
            now = time.monotonic()
            piece.job.timing.inference += cost.compute
            piece.job.timing.encode += now - before
            before = now
        model = worker.batch[0].job.source.model
        metrics.ENCODE_TIME.labels(model.name).observe(before - started)
        self._hand_on(worker, results)
        if not worker.given_up:
            threads = self._size if alone else 1
            new = ImageCost(threads * cost.compute / made, (before - started) / made, made)
            self._measure(model, new)

    def _hand_on(
        self, worker: Worker, results: list[tuple[BatchSlice, list[Any] | Exception]]
    ) -> None:
        outcomes: list[Outcome] = []
        with self._lock:
            if not worker.given_up:  # else its images have been taken off already
                self._under_way -= _size(worker.batch)
                worker.batch = []
            for (job, chunk), result in results:
                if job.over:
                    continue
                if isinstance(result, Exception):
                    self._backlog.drop(job)
                    outcomes.append((job, result))
                else:
                    job.store(chunk, result)
                    if not job.missing:
                        job.over = True
                        outcomes.append((job, None))
        if outcomes:
            self._deliver(outcomes)

    def _measure(self, model: Model, new: ImageCost) -> None:
        with self._lock:
            old = self._costs.get(model.name)
            self._last = old.with_batch(new, model.largest_batch) if old else new
            self._costs[model.name] = self._last


def _finish(job: Job, frames: list[ImageInfo], images: Any) -> list[Any] | Exception:
    """What a job makes of its images; nothing of those that nobody waits for any more."""
    if job.over:
        return []
    try:
        return [job.finish(*pair) for pair in zip(frames, images, strict=True)]
    except Exception as error:
        return error


def _size(batch: list[BatchSlice]) -> int:
    return sum(len(piece.chunk) for piece in batch)
