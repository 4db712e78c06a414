"""Ceiling for the service: the model's session and the encoder on threads, without a server.

    python -m benchmarks.ceiling MODEL_FILE

Reads lines such as ``bulk 4`` (kind, seconds) and answers each with images per second.
``lone`` is one image at a time, by one thread or by all of them, whichever is faster this time;
``bulk`` is batches, on one calling thread for each core, as answered in JSON; ``npy`` is the same,
pixels only. On CUDA, the threads take turns at a session of the largest bucket.
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


def as_json(images: Images) -> str:
    files = [base64.b64encode(png.encode(pixels, {})).decode() for pixels in images]
    return json.dumps({"images": files})


def as_npy(images: Images) -> bytes:
    return images.tobytes()


def rate(
    make: Callable[[], Images], encode: Callable[[Images], Any], threads: int, s: float
) -> float:
    """Images per second of several threads over ``s`` seconds."""
    started = time.perf_counter()

    def loop(_: int) -> int:
        made = 0
        while time.perf_counter() < started + s:
            images = make()
            encode(images)
            made += len(images)
        return made

    with ThreadPoolExecutor(threads) as pool:
        made = sum(pool.map(loop, range(threads)))
    return made / (time.perf_counter() - started)


def ways(model: bytes, cores: int) -> dict[str, Callable[[float], float]]:
    """Kinds of ceiling, each a function of seconds to images per second."""
    runtime = SessionFactory("auto", cores)
    runtime.probe_cuda([model])
    session = runtime.create(model)
    (node,) = session.get_inputs()
    random = np.random.default_rng()

    def feeds(count: int) -> Feeds:
        return {node.name: random.standard_normal((count, node.shape[1]), dtype=np.float32)}

    if runtime.device == "cuda":
        size, turn = max(BUCKETS), threading.Lock()
        large = BucketedExecutor({size: runtime.create(model, batch=size)}, "cuda")
        single = BucketedExecutor({1: runtime.create(model, batch=1)}, "cuda")

        def in_turn() -> Images:
            with turn:
                return large(feeds(size))

        return {
            "lone": lambda s: rate(lambda: single(feeds(1)), as_json, 1, s),
            "bulk": lambda s: rate(in_turn, as_json, cores, s),
            "npy": lambda s: rate(in_turn, as_npy, cores, s),
        }

    network = ThreadedExecutor(session, multithreaded=runtime.create(model, threads=cores))

    def batch() -> Images:
        return network(feeds(CHUNK), exclusive=False)

    def by_one_thread() -> Images:
        return network(feeds(1), exclusive=False)

    def by_all_threads() -> Images:
        return network(feeds(1), exclusive=True)

    return {
        "lone": lambda s: max(
            rate(make, as_json, 1, s) for make in (by_one_thread, by_all_threads)
        ),
        "bulk": lambda s: rate(batch, as_json, cores, s),
        "npy": lambda s: rate(batch, as_npy, cores, s),
    }


def main(model: Path) -> None:
    found = ways(model.read_bytes(), cpus.available())
    for line in sys.stdin:
        kind, seconds = line.split()
        print(found[kind](float(seconds)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
