"""Ceiling of throughput: the model's session and the encoder on threads, without a server.

    python -m benchmarks.ceiling MODEL_FILE

Needs an unconditional model file; runs until its input ends. ``serve``, ``sets`` and ``bulk`` start
it. Reads lines such as ``bulk 4`` (kind, seconds) and prints images per second for each. Kinds:

``lone``: one image at a time, computed by one thread or by all of them; the faster one counts.
``bulk``: batches on one calling thread per core, encoded as in a JSON response.
``npy``: the same, but only the bytes of the pixels.

On CUDA, the threads share one session of the largest batch size, one at a time.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.core import cpus
from service.formats import png
from service.inference.execution import BUCKETS, CHUNK, BucketedExecutor, Feeds, ThreadedExecutor
from service.inference.session import SessionFactory

Images = npt.NDArray[np.uint8]
"""Shape (n, height, width, channels)."""


def as_json(images: Images) -> str:
    files = [base64.b64encode(png.encode(pixels, {})).decode() for pixels in images]
    return json.dumps({"images": files})


def as_npy(images: Images) -> bytes:
    return images.tobytes()


def throughput(
    compute: Callable[[], Images], encode: Callable[[Images], Any], threads: int, seconds: float
) -> float:
    """Images per second of ``threads`` threads over ``seconds``."""
    started = time.perf_counter()

    def loop(_: int) -> int:
        count = 0
        while time.perf_counter() < started + seconds:
            images = compute()
            encode(images)
            count += len(images)
        return count

    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(loop, range(threads)))
    return count / (time.perf_counter() - started)


def ceilings(model: bytes, cores: int) -> dict[str, Callable[[float], float]]:
    """Kinds of ceiling, each a function of seconds to images per second."""
    runtime = SessionFactory("auto", cores)
    runtime.probe_cuda([model])
    session = runtime.create(model)
    (node,) = session.get_inputs()
    random = np.random.default_rng()

    def feeds(count: int) -> Feeds:
        return {node.name: random.standard_normal((count, node.shape[1]), dtype=np.float32)}

    if runtime.device == "cuda":
        size, gpu = max(BUCKETS), threading.Lock()
        large = BucketedExecutor({size: runtime.create(model, batch=size)}, "cuda")
        single = BucketedExecutor({1: runtime.create(model, batch=1)}, "cuda")

        def large_batch() -> Images:
            with gpu:
                return large(feeds(size))

        return {
            "lone": lambda s: throughput(lambda: single(feeds(1)), as_json, 1, s),
            "bulk": lambda s: throughput(large_batch, as_json, cores, s),
            "npy": lambda s: throughput(large_batch, as_npy, cores, s),
        }

    network = ThreadedExecutor(session, multithreaded=runtime.create(model, threads=cores))

    def batch() -> Images:
        return network(feeds(CHUNK), exclusive=False)

    def on_one_thread() -> Images:
        return network(feeds(1), exclusive=False)

    def on_all_threads() -> Images:
        return network(feeds(1), exclusive=True)

    return {
        "lone": lambda s: max(
            throughput(compute, as_json, 1, s) for compute in (on_one_thread, on_all_threads)
        ),
        "bulk": lambda s: throughput(batch, as_json, cores, s),
        "npy": lambda s: throughput(batch, as_npy, cores, s),
    }


def main(model: Path) -> None:
    by_kind = ceilings(model.read_bytes(), cpus.available())
    for line in sys.stdin:
        kind, seconds = line.split()
        print(by_kind[kind](float(seconds)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
