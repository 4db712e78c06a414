"""Choice of an executor by measurement: exact to the last bit on this machine, then fast.

The bytes of an image must not depend on its batch. When a model is loaded, each way to run it is
tested on the machine that will serve it, and a way whose images differ is not used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import onnxruntime as ort

from service.inference.execution import (
    BUCKETS,
    CHUNK,
    BucketedExecutor,
    Executor,
    Feeds,
    FixedBatchExecutor,
    Images,
    ThreadedExecutor,
    run,
)
from service.inference.session import SessionFactory

TEST_IMAGES = 64
"""Compared images on CUDA: as many as the largest bucket."""
MAX_THREADS_PER_IMAGE = 4
"""The layers of one image are too small for more."""
TIMED_RUNS = 10

log = logging.getLogger(__name__)


def choose_executor(
    runtime: SessionFactory, model: bytes, session: ort.InferenceSession
) -> Executor:
    """Fastest exact executor for ``model``, the content of a file with ``session`` of dynamic size.

    Raises errors of ONNX Runtime.
    """
    if runtime.device == "cuda":
        return _exact_buckets(runtime, model, _example(session, TEST_IMAGES))
    feeds = _example(session, CHUNK)
    plain = ThreadedExecutor(session, None)
    expected = plain(feeds, exclusive=False)
    if not all(
        _exact(lambda rows: plain(rows, exclusive=False), feeds, expected, size)
        for size in (1, 2, 3, 5, 8, 13)
    ):
        log.warning(
            "images differ with the batch size on this CPU; every batch is padded to %d", CHUNK
        )
        return FixedBatchExecutor(runtime.create(model, batch=CHUNK))
    return ThreadedExecutor(session, _multithreaded_session(runtime, model, session, feeds))


def _exact_buckets(runtime: SessionFactory, model: bytes, feeds: Feeds) -> BucketedExecutor:
    """Executor with the buckets whose images equal those of the bucket of 16, at any position.

    If images of that bucket differ with their position, only the bucket of 1 is used.
    """
    sessions = {size: runtime.create(model, batch=size) for size in BUCKETS}
    buckets = {
        size: BucketedExecutor({size: session}, "cuda") for size, session in sessions.items()
    }
    expected = _in_steps(buckets[CHUNK], feeds, CHUNK)
    rolled = {name: np.roll(rows, 3, axis=0) for name, rows in feeds.items()}
    if not np.array_equal(np.roll(_in_steps(buckets[CHUNK], rolled, CHUNK), -3, axis=0), expected):
        log.warning(
            "images differ with their position in the batch on this GPU; batches have one image"
        )
        return buckets[1]
    exact = [size for size in BUCKETS if _exact(buckets[size], feeds, expected, size)]
    if len(exact) < len(BUCKETS):
        log.warning("of the batch sizes %s, only %s are exact on this GPU", BUCKETS, exact)
    return BucketedExecutor({size: sessions[size] for size in exact}, "cuda")


def _multithreaded_session(
    runtime: SessionFactory, model: bytes, session: ort.InferenceSession, feeds: Feeds
) -> ort.InferenceSession | None:
    """Session that uses several cores for one image, if it is exact and faster; otherwise None."""
    if runtime.threads == 1:
        return None
    multithreaded = runtime.create(model, threads=min(runtime.threads, MAX_THREADS_PER_IMAGE))
    if not _exact(lambda rows: run(multithreaded, rows), feeds, run(session, feeds), 1):
        log.warning(
            "images differ with the number of threads on this CPU; each image uses one thread"
        )
        return None
    one = {name: rows[:1] for name, rows in feeds.items()}
    times = [(_seconds(multithreaded, one), _seconds(session, one)) for _ in range(TIMED_RUNS)]
    with_all, with_one = map(min, zip(*times, strict=True))  # the runs with the least interference
    return multithreaded if with_all < with_one else None


def _exact(execute: Callable[[Feeds], Images], feeds: Feeds, expected: Images, size: int) -> bool:
    """True if images in batches of ``size`` equal ``expected``."""
    return np.array_equal(_in_steps(execute, feeds, size), expected)


def _in_steps(execute: Callable[[Feeds], Images], feeds: Feeds, size: int) -> Images:
    """Images of all ``feeds``, in batches of ``size``."""
    count = len(next(iter(feeds.values())))
    return np.concatenate(
        [
            execute({name: rows[first : first + size] for name, rows in feeds.items()})
            for first in range(0, count, size)
        ]
    )


def _seconds(session: ort.InferenceSession, feeds: Feeds) -> float:
    started = time.perf_counter()
    run(session, feeds)
    return time.perf_counter() - started


def _example(session: ort.InferenceSession, count: int) -> Feeds:
    random = np.random.default_rng(0)
    return {
        node.name: random.standard_normal((count, node.shape[1]), dtype=np.float32)
        for node in session.get_inputs()
    }
