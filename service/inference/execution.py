"""Executors: ways to run a batch, of any size on the CPU and of a few fixed sizes on CUDA.

``service/inference/exactness.py`` chooses one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.core.manifest import IMAGE

CHUNK = 16
"""Most images in one run on a CPU: larger batches gain little and take much memory."""
BUCKETS = (1, 8, 16, 64)
"""Batch sizes on CUDA; smaller batches are padded. cuDNN plans anew for each new size."""

Feeds = Mapping[str, npt.NDArray[np.float32]]
Images = npt.NDArray[np.uint8]


class Executor(Protocol):
    """A model's network, ready to run. Thread-safe."""

    largest_batch: int

    def __call__(self, feeds: Feeds, *, exclusive: bool) -> Images:
        """Images ``[N, H, W, channels]`` of inputs ``[N, ...]``, N at most ``largest_batch``.

        ``exclusive``: nothing else is being computed, so one image may use all cores.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Batch sizes and options in use, for ``/info`` and the log."""
        ...


class ThreadedExecutor:
    """Runs on the calling thread, of which there is one for each CPU core.

    ``multithreaded`` is a session with a thread for each core, used for a single image on an idle
    server: it has a lower latency and a lower throughput.
    """

    largest_batch = CHUNK

    def __init__(
        self, session: ort.InferenceSession, multithreaded: ort.InferenceSession | None
    ) -> None:
        self._session = session
        self._multithreaded = multithreaded

    def __call__(self, feeds: Feeds, *, exclusive: bool) -> Images:
        session = self._multithreaded if exclusive else None
        return run(session or self._session, feeds)

    def describe(self) -> dict[str, Any]:
        return {
            "batches": f"1 to {CHUNK}",
            "all_cores_for_a_lone_image": self._multithreaded is not None,
        }


class FixedBatchExecutor:
    """Pads every batch to one size, for CPU kernels whose rounding depends on the batch size."""

    largest_batch = CHUNK

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def __call__(self, feeds: Feeds, *, exclusive: bool) -> Images:
        count = len(next(iter(feeds.values())))
        padding = ((0, CHUNK - count), (0, 0))
        return run(self._session, {k: np.pad(rows, padding) for k, rows in feeds.items()})[:count]

    def describe(self) -> dict[str, Any]:
        return {"batches": [CHUNK]}


class BucketedExecutor:
    """Pads batches to a few sizes, each with its own session and buffers on the device."""

    def __init__(self, sessions: Mapping[int, ort.InferenceSession], device: str) -> None:
        self._buckets = {
            size: BoundSession(sessions[size], size, device) for size in sorted(sessions)
        }
        self.largest_batch = max(sessions)
        self._lock = threading.Lock()

    def __call__(self, feeds: Feeds, *, exclusive: bool = False) -> Images:
        count = len(next(iter(feeds.values())))
        size = next(size for size in self._buckets if size >= count)
        with self._lock:
            return self._buckets[size](feeds)[:count]

    def describe(self) -> dict[str, Any]:
        return {"batches": list(self._buckets)}


class BoundSession:
    """Session of one batch size whose input and output buffers stay on the device."""

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
        for name, new in feeds.items():
            rows, value = self._inputs[name]
            rows[: len(new)] = new  # rows of the previous batch serve as padding
            value.update_inplace(rows)
        self._session.run_with_iobinding(self._binding)
        # A copy: the next batch overwrites the buffer.
        return np.array(self._output.numpy())


def run(session: ort.InferenceSession, feeds: Feeds) -> Images:
    """Images of one run of a session."""
    images: Images = session.run([IMAGE], feeds)[0]
    return images
