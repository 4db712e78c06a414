"""How a batch is run: any size by the calling thread on a CPU, a few fixed sizes on CUDA.

Whatever the way, an image must come out the same to the last bit. That it does is tried out when a
model is loaded, on the machine that will serve it; a way that fails is not used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.inference.session import SessionFactory

CHUNK = 16
"""Images in one run on a CPU. More gains little, and one large batch takes much memory."""
BUCKETS = (1, 8, 16, 64)
"""Sizes of batches on CUDA, where each new size has cuDNN plan anew; smaller ones are padded."""
ROWS = 64
"""Images that are compared: as many as the largest batch has places."""
LONE_THREADS = 4
"""Most threads put to one image, whose layers are too small for many."""
TRIALS = 10

Feeds = Mapping[str, npt.NDArray[np.float32]]
Images = npt.NDArray[np.uint8]

log = logging.getLogger(__name__)


class Executor(Protocol):
    """A model's network, ready to run; several threads may call it at once."""

    largest_batch: int

    def __call__(self, feeds: Feeds, *, alone: bool) -> Images:
        """Inputs ``[N, ...]`` to images ``[N, H, W, channels]``, N up to ``largest_batch``.

        ``alone``: nothing else is being computed, so one image may take all cores.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What was chosen, for people to read."""
        ...


class ThreadedExecutor:
    """On a CPU: a session without threads of its own, and one calling thread for each core.

    ``lone`` is a session with a thread for each core: it makes a single image sooner, and less of
    many.
    """

    largest_batch = CHUNK

    def __init__(self, session: ort.InferenceSession, lone: ort.InferenceSession | None) -> None:
        self._session = session
        self._lone = lone

    def __call__(self, feeds: Feeds, *, alone: bool) -> Images:
        return _run(self._lone if alone and self._lone is not None else self._session, feeds)

    def describe(self) -> dict[str, Any]:
        return {"batches": f"1 to {CHUNK}", "all_cores_for_a_lone_image": self._lone is not None}


class FixedBatchExecutor:
    """On a CPU whose kernels round differently from one batch size to another: one size only."""

    largest_batch = CHUNK

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def __call__(self, feeds: Feeds, *, alone: bool) -> Images:
        count = len(next(iter(feeds.values())))
        padding = ((0, CHUNK - count), (0, 0))
        return _run(self._session, {k: np.pad(rows, padding) for k, rows in feeds.items()})[:count]

    def describe(self) -> dict[str, Any]:
        return {"batches": [CHUNK]}


class BucketedExecutor:
    """In batches of fixed sizes, each with a session of its own, buffers bound once.

    Not for several threads at once: a GPU is fed by one.
    """

    def __init__(self, sessions: Mapping[int, ort.InferenceSession], device: str) -> None:
        self._buckets = {
            size: BoundSession(sessions[size], size, device) for size in sorted(sessions)
        }
        self.largest_batch = max(sessions)

    def __call__(self, feeds: Feeds, *, alone: bool = False) -> Images:
        count = len(next(iter(feeds.values())))
        size = next(size for size in self._buckets if size >= count)
        return self._buckets[size](feeds)[:count]

    def describe(self) -> dict[str, Any]:
        return {"batches": list(self._buckets)}


class BoundSession:
    """A session of one batch size, whose inputs and output stay where they are on the device."""

    def __init__(self, session: ort.InferenceSession, size: int, device: str) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs = {}
        for node in session.get_inputs():
            rows = np.zeros((size, *node.shape[1:]), dtype=np.float32)
            value = ort.OrtValue.ortvalue_from_numpy(rows, device, 0)
            self._inputs[node.name] = rows, value
            self._binding.bind_ortvalue_input(node.name, value)
        (output,) = session.get_outputs()
        shape = (size, *output.shape[1:])
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, device, 0)
        self._binding.bind_ortvalue_output(output.name, self._output)

    def __call__(self, feeds: Feeds) -> Images:
        for name, given in feeds.items():
            rows, value = self._inputs[name]
            rows[: len(given)] = given  # what is left of the last batch fills it up
            value.update_inplace(rows)
        self._session.run_with_iobinding(self._binding)
        # A copy: the buffer is written again by the next batch.
        return np.array(self._output.numpy())


def choose_executor(
    runtime: SessionFactory, model: bytes, session: ort.InferenceSession
) -> Executor:
    """The fastest exact way to run ``model``, whose dynamic ``session`` is open already.

    Raises whatever ONNX Runtime raises for a model that it cannot run.
    """
    if runtime.device == "cuda":
        return _exact_buckets(runtime, model, _example(session, ROWS))
    feeds = _example(session, CHUNK)
    plain = ThreadedExecutor(session, None)
    expected = plain(feeds, alone=False)
    if not all(
        _exact(lambda rows: plain(rows, alone=False), feeds, expected, size)
        for size in (1, 2, 3, 5, 8, 13)
    ):
        log.warning("images differ with the size of the batch here; every batch is made %d", CHUNK)
        return FixedBatchExecutor(runtime.open(model, batch=CHUNK))
    return ThreadedExecutor(session, _worthwhile(runtime, model, session, feeds))


def _exact_buckets(runtime: SessionFactory, model: bytes, feeds: Feeds) -> BucketedExecutor:
    """The buckets in which every image has the bits that it has in the bucket of 16, in any place.

    Where even those differ from place to place, one image at a time is what remains.
    """
    sessions = {size: runtime.open(model, batch=size) for size in BUCKETS}
    buckets = {
        size: BucketedExecutor({size: session}, "cuda") for size, session in sessions.items()
    }
    expected = _in_steps(buckets[CHUNK], feeds, CHUNK)
    moved = {name: np.roll(rows, 3, axis=0) for name, rows in feeds.items()}
    if not np.array_equal(np.roll(_in_steps(buckets[CHUNK], moved, CHUNK), -3, axis=0), expected):
        log.warning("images differ with their place in the batch here; each is made by itself")
        return buckets[1]
    exact = [size for size in BUCKETS if _exact(buckets[size], feeds, expected, size)]
    if len(exact) < len(BUCKETS):
        log.warning("of batches of %s, only those of %s are exact here", BUCKETS, exact)
    return BucketedExecutor({size: sessions[size] for size in exact}, "cuda")


def _worthwhile(
    runtime: SessionFactory, model: bytes, session: ort.InferenceSession, feeds: Feeds
) -> ort.InferenceSession | None:
    """A session that puts all cores to one image, if that is exact, and faster here."""
    if runtime.threads == 1:
        return None
    lone = runtime.open(model, threads=min(runtime.threads, LONE_THREADS))
    if not _exact(lambda rows: _run(lone, rows), feeds, _run(session, feeds), 1):
        log.warning("images differ with the number of threads here; one makes each")
        return None
    one = {name: rows[:1] for name, rows in feeds.items()}
    times = [(_seconds(lone, one), _seconds(session, one)) for _ in range(TRIALS)]
    with_all, with_one = map(min, zip(*times, strict=True))  # the least disturbed of each
    return lone if with_all < with_one else None


def _exact(run: Callable[[Feeds], Images], feeds: Feeds, expected: Images, size: int) -> bool:
    """Whether images come out as expected in batches of this size."""
    return np.array_equal(_in_steps(run, feeds, size), expected)


def _in_steps(run: Callable[[Feeds], Images], feeds: Feeds, size: int) -> Images:
    """All images, so many at a time."""
    count = len(next(iter(feeds.values())))
    return np.concatenate(
        [
            run({name: rows[first : first + size] for name, rows in feeds.items()})
            for first in range(0, count, size)
        ]
    )


def _seconds(session: ort.InferenceSession, feeds: Feeds) -> float:
    started = time.perf_counter()
    _run(session, feeds)
    return time.perf_counter() - started


def _run(session: ort.InferenceSession, feeds: Feeds) -> Images:
    images: Images = session.run(["image"], feeds)[0]
    return images


def _example(session: ort.InferenceSession, count: int) -> Feeds:
    random = np.random.default_rng(0)
    return {
        node.name: random.standard_normal((count, node.shape[1]), dtype=np.float32)
        for node in session.get_inputs()
    }
