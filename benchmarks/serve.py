"""Start-up, memory and throughput of the service, beside the runtime beneath it.

    make bench

The ceiling is the same work without a server: the model's session and the PNG encoder on as many
threads as the service uses, measured in turn with the service, in one run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from service import cpus
from service.formats.images import encode
from service.models import load_model
from service.runtime import CHUNK, Runtime
from service.sampling import Samples

ROOT = Path(__file__).parent.parent
PORT = 8765
URL = f"http://127.0.0.1:{PORT}"
MODELS = Path(os.environ.get("FIGMENT_MODELS", ROOT / "models"))
MODEL = "anime-faces"
ROUNDS = 3
SECONDS = 4
MEGABYTE = 1024 * 1024


@contextmanager
def service() -> Iterator[tuple[psutil.Process, float]]:
    """The running service and the seconds from its process's start to its first ready answer."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "service", "--port", str(PORT)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    httpx.get(f"{URL}/readyz").raise_for_status()
                    break
                except httpx.TransportError:
                    if process.poll() is not None:
                        raise SystemExit("the service did not start; see `make serve`") from None
                    time.sleep(0.01)
            yield psutil.Process(process.pid), time.perf_counter() - started
        finally:
            process.terminate()


def peak_memory(process: psutil.Process) -> float:
    """Megabytes; the most that was resident at any time, which only Linux tells."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def rate(work: Callable[[], int], callers: int) -> float:
    """Images per second while ``callers`` threads call ``work``, which says how many it made."""
    until = time.perf_counter() + SECONDS

    def loop(_: int) -> int:
        made = 0
        while time.perf_counter() < until:
            made += work()
        return made

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        made = sum(pool.map(loop, range(callers)))
    return made / (time.perf_counter() - started)


def ceiling(threads: int) -> Callable[[], float]:
    """The rate without a server: latents, session and PNG in chunks, on the service's threads."""
    folder = max((MODELS / MODEL).iterdir(), key=lambda path: int(path.name))
    path = folder / "model.onnx"
    runtime = Runtime("auto")  # as the service chooses
    runtime.settle([path.read_bytes()])
    model = load_model(path, runtime)
    samples = Samples(model, seed=0, offset=0, n=CHUNK)

    def work() -> int:
        for frame in samples.frames(range(CHUNK)):
            assert frame.address is not None
            encode(frame.pixels, "png", frame.address.url())
        return CHUNK

    return lambda: rate(work, threads)


def requests(n: int, connections: int) -> Callable[[], float]:
    """The rate of the service answering ``n`` images a request over so many connections."""
    limits = httpx.Limits(max_connections=connections)

    def measure() -> float:
        with httpx.Client(base_url=URL, limits=limits, timeout=60) as client:

            def work() -> int:
                client.post("/generate", json={"model": MODEL, "n": n}).raise_for_status()
                return n

            return rate(work, connections)

    return measure


def main() -> None:
    threads = cpus.available()
    scenarios = {
        "ceiling: no server": ceiling(threads),
        "n=1, 1 connection": requests(1, 1),
        "n=1, 8 connections": requests(1, 8),
        "n=16, 8 connections": requests(16, 8),
        "n=256, 2 connections": requests(256, 2),
    }
    with service() as (process, seconds):
        idle = process.memory_info().rss / MEGABYTE
        rates: dict[str, list[float]] = {name: [] for name in scenarios}
        for _ in range(ROUNDS):
            for name, measure in scenarios.items():
                rates[name].append(measure())
        peak = peak_memory(process)

    print(f"start to ready      {seconds:.1f} s")
    print(f"resident memory     {idle:.0f} MB idle, {peak:.0f} MB at its peak")
    print(f"threads             {threads}\n")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    best = medians["ceiling: no server"]
    for name, images in medians.items():
        print(f"{name:<22}{images:8.0f} images/s {images / best:6.2f} of the ceiling")


if __name__ == "__main__":
    main()
