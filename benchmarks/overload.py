"""Behaviour under overload: goodput, latency, and probes, over new and over kept connections.

    python -m benchmarks.overload [--model FILE] [--n 1] [--times 3 --times 10] [--seconds 20]

Needs the free port 8765, and PyTorch unless ``--model`` is given; takes some five times
``--seconds``. Starts the service and measures its capacity, over connections that are kept. Then
offers several times as much at random times (a Poisson process), without retries; each request has
its own seed. Meanwhile another process requests ``/readyz`` over new connections, ten times a
second. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop

from benchmarks.load import Load, LoadResult, Policy, request
from benchmarks.serve import PORTS, PYTHON, ROOT, server, untrained_model

PORT = PORTS["figment"]
SATURATING_IMAGES = 128
"""Concurrent images while the capacity is measured: eight full batches."""
MIN_GOODPUT = 0.8
"""Required goodput, relative to the capacity."""
MAX_P99_MS = 2000.0
MAX_PROBE_MS = 500.0
PROBES_PER_SECOND = 10
PAUSE_SECONDS = 2.0
"""Time for the queue to become empty."""


@dataclass
class Overload:
    """Offered load and its results."""

    times: float
    """Offered requests, relative to the capacity."""
    fresh: bool
    """Each request over a new connection."""
    load: LoadResult
    sent_per_second: float
    probes: LoadResult
    generator_cores: float
    """Mean number of cores used by the load generator."""

    def __str__(self) -> str:
        return f"{self.times:g} times, {'new' if self.fresh else 'kept'} connections"

    def met(self, capacity: float) -> bool:
        """True if all targets are met. Latencies are NaN if there are none."""
        return (
            self.load.requests_per_second >= MIN_GOODPUT * capacity
            and self.load.p99 < MAX_P99_MS
            and self.load.errors == 0
            and self.probes.p99 < MAX_PROBE_MS
            and self.probes.errors == 0
        )


def requests(n: int, *, fresh: bool = False) -> Iterator[bytes]:
    """Requests for ``n`` images each, with seeds of their own."""
    for seed in itertools.count():
        yield request("/generate", {"n": n, "seed": seed}, close=fresh)


def measure_capacity(n: int, seconds: float) -> float:
    """Accepted requests per second of closed-loop clients."""
    load = Load(PORT, requests(n), Policy(connections=max(SATURATING_IMAGES // n, 2)))
    uvloop.run(load.run(seconds))
    return load.requests_per_second


def overload(n: int, capacity: float, times: float, seconds: float, *, fresh: bool) -> Overload:
    """Offer ``times * capacity`` for ``seconds``, and probe."""
    command = [PYTHON, "-m", "benchmarks.load", f"http://127.0.0.1:{PORT}/readyz", "--fresh"]
    command += [f"--rate={PROBES_PER_SECOND}", f"--seconds={seconds}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as prober:
        started, cpu = time.perf_counter(), time.process_time()
        load = Load(PORT, requests(n, fresh=fresh), Policy(rate=times * capacity))
        uvloop.run(load.run(seconds))
        cores = (time.process_time() - cpu) / (time.perf_counter() - started)
        probes, _ = prober.communicate()
    sent = load.outcomes.total() / seconds
    return Overload(times, fresh, load.result, sent, LoadResult(**json.loads(probes)), cores)


def report(capacity: float, alone: float, results: list[Overload]) -> None:
    print(
        f"capacity {capacity:.1f} requests per second; alone {alone:.0f} ms; "
        f"load average {os.getloadavg()[0]:.1f}\n"
    )
    print(
        f"{'':<28}{'sent/s':>8}{'goodput/s':>11}{'of capacity':>13}{'p50 ms':>8}{'p99':>7}"
        f"{'429':>8}{'errors':>8}{'probe p50':>11}{'p99':>7}{'errors':>8}{'clients, cores':>16}"
    )
    for each in results:
        load, probes = each.load, each.probes
        print(
            f"{each!s:<28}{each.sent_per_second:8.0f}{load.requests_per_second:11.1f}"
            f"{load.requests_per_second / capacity:13.2f}{load.p50:8.0f}{load.p99:7.0f}"
            f"{load.rejected:8}{load.errors:8}{probes.p50:11.0f}{probes.p99:7.0f}"
            f"{probes.errors + probes.rejected:8}{each.generator_cores:16.2f}"
            f"  {'met' if each.met(capacity) else 'MISSED'}"
        )


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--n", default=1, show_default=True, help="Images in each request.")
@click.option("--times", default=(3.0, 10.0), multiple=True, help="Offered, times the capacity.")
@click.option("--seconds", default=20.0, show_default=True, help="Duration of each overload.")
def main(model: Path | None, n: int, times: tuple[float, ...], seconds: float) -> None:
    """Offer several times the capacity, and check goodput, latency and probes."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        file = model or untrained_model(Path(folder))
        service = [PYTHON, "-m", "service", "--models", str(file.parent.parent.parent)]
        with server("figment", [*service, "--port", str(PORT)]):
            capacity = measure_capacity(n, seconds / 2)
            time.sleep(PAUSE_SECONDS)
            alone = Load(PORT, requests(n), Policy())
            uvloop.run(alone.run(PAUSE_SECONDS))
            for fresh, factor in itertools.product((False, True), times):
                results.append(overload(n, capacity, factor, seconds, fresh=fresh))
                time.sleep(PAUSE_SECONDS)
    report(capacity, alone.result.p50, results)
    sys.exit(not all(each.met(capacity) for each in results))


if __name__ == "__main__":
    main()
