"""Behaviour under overload: latency, rejected requests, Retry-After, recovery.

    python -m benchmarks.overload [--model FILE] [--times 10] [--seconds 60] [--n 16]

Needs the free port 8765, and PyTorch unless ``--model`` is given; takes one and a half times
``--seconds`` and some ten seconds. Starts the service, measures its capacity, then offers that load
and ``--times`` as much. Requests arrive at random times (a Poisson process) and are not retried,
except by some clients that retry after Retry-After. Each request has its own seed. Exits with 1 if
a target is missed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import uvloop

from benchmarks.async_http import (
    ConnectionCut,
    ConnectionPool,
    ConnectionRefused,
    percentile,
    request,
)
from benchmarks.serve import PORTS, PYTHON, server, untrained_model

PORT = PORTS["figment"]
SATURATING_IMAGES = 128
"""Concurrent images while the capacity is measured: eight full batches."""
RETRY_PAUSE_SECONDS = 0.05
"""Pause of a saturating client after a rejected request."""
MAX_LATENCY_RATIO = 2.0
"""Largest allowed 99th percentile of accepted requests, relative to that at capacity."""
MAX_RECOVERY_SECONDS = 2.0
MIN_FAST_SHARE = 0.97
"""Share of fast probes after recovery; other programs on the machine slow down single ones."""
IDLE_PROBES = 30
PROBE_PAUSE_SECONDS = 0.02
RECOVERY_PROBE_SECONDS = 6.0
"""Observation after the load."""

_seeds = itertools.count()


@dataclass
class PhaseResult:
    """Outcomes of the requests of one phase."""

    latencies: list[float] = field(default_factory=list)
    """Latencies of accepted requests, in seconds since they were due."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Number of requests by status or exception."""
    retry_after: list[int] = field(default_factory=list)
    """Retry-After of all rejections, in seconds."""
    seconds: float = 0
    """Duration of the phase."""
    generator_cores: float = 0
    """Mean number of cores used by the load generator."""

    @property
    def sent(self) -> int:
        """Number of requests."""
        return sum(self.statuses.values())

    @property
    def rejected(self) -> float:
        """Share of requests rejected with 429."""
        return self.statuses.get("429", 0) / self.sent

    @property
    def failed(self) -> int:
        """Number of requests neither accepted nor rejected with Retry-After."""
        return sum(count for kind, count in self.statuses.items() if kind not in ("200", "429"))


class LoadGenerator:
    """Clients that request ``n`` images each; outcomes go to ``result``."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._pool = ConnectionPool(PORT)
        self._random = random.Random(5)
        self.result = PhaseResult()

    def new_request(self) -> bytes:
        """Request with a seed of its own."""
        return request("/generate", {"n": self._n, "seed": next(_seeds)})

    async def send(self, content: bytes, due: float) -> int | None:
        """Send once; return 0 if accepted, Retry-After in seconds if rejected, None if failed."""
        result = self.result
        try:
            response = await self._pool.exchange(content, keep_body=False)
            kind = str(response.status)
        except (ConnectionCut, ConnectionRefused, TimeoutError) as error:
            kind = type(error).__name__
        result.statuses[kind] = result.statuses.get(kind, 0) + 1
        if kind == "200":
            result.latencies.append(time.perf_counter() - due)
            return 0
        if kind == "429":
            result.retry_after.append(response.retry_after)
            return response.retry_after
        return None

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Poisson arrivals at ``rate`` requests per second, regardless of outcomes."""
        due = time.perf_counter()
        end = due + seconds
        tasks: set[asyncio.Task[int | None]] = set()
        while (due := due + self._random.expovariate(rate)) < end:
            early = due - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(self.send(self.new_request(), due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def retrying_client(self, seconds: float) -> None:
        """Closed-loop client that honours Retry-After."""
        end = time.perf_counter() + seconds
        await asyncio.sleep(self._random.random())
        while time.perf_counter() < end:
            content = self.new_request()
            while (sent := time.perf_counter()) < end and (delay := await self.send(content, sent)):
                await asyncio.sleep(min(delay, max(0, end - time.perf_counter())))

    async def capacity(self, connections: int, seconds: float) -> float:
        """Accepted requests per second of closed-loop clients."""
        self.result = PhaseResult()
        started = time.perf_counter()

        async def client() -> None:
            while (now := time.perf_counter()) < started + seconds:
                if await self.send(self.new_request(), now) != 0:
                    await asyncio.sleep(RETRY_PAUSE_SECONDS)

        await asyncio.gather(*(client() for _ in range(connections)))
        return len(self.result.latencies) / (time.perf_counter() - started)

    async def phase(self, rate: float, seconds: float, retrying: int = 0) -> PhaseResult:
        """Open-loop load at ``rate`` requests per second, and ``retrying`` clients that retry."""
        self.result = PhaseResult()
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(
            self.open_loop(rate, seconds), *(self.retrying_client(seconds) for _ in range(retrying))
        )
        self.result.seconds = time.perf_counter() - started
        self.result.generator_cores = (time.process_time() - cpu) / self.result.seconds
        return self.result

    async def probe(self) -> float | None:
        """Latency of one request in seconds; None if it was not accepted."""
        sent = time.perf_counter()
        delay = await self.send(self.new_request(), sent)
        return None if delay != 0 else time.perf_counter() - sent

    async def recovery(self, idle_latency: float) -> float:
        """Seconds until ``MIN_FAST_SHARE`` of all later probes take at most ``idle_latency``."""
        started = time.perf_counter()
        probes: list[tuple[float, bool]] = []  # (time, fast)
        while (now := time.perf_counter() - started) < RECOVERY_PROBE_SECONDS:
            latency = await self.probe()
            probes.append((now, latency is not None and latency <= idle_latency))
            await asyncio.sleep(PROBE_PAUSE_SECONDS)
        for at, _ in probes:
            later = [fast for when, fast in probes if when >= at]
            if later[0] and sum(later) >= MIN_FAST_SHARE * len(later):
                return at
        return RECOVERY_PROBE_SECONDS


@dataclass
class OverloadResult:
    """Results of all phases."""

    capacity: float
    """Requests per second."""
    idle_latency: float
    """Median latency of one request at a time, in seconds."""
    at_capacity: PhaseResult
    overload: PhaseResult
    recovery_seconds: float

    def targets(self) -> list[tuple[str, bool]]:
        """Sentences about the targets, and whether each is met."""
        ratio = percentile(self.overload.latencies, 0.99) / percentile(
            self.at_capacity.latencies, 0.99
        )
        failed = self.at_capacity.failed + self.overload.failed
        return [
            (
                f"p99 of accepted requests is {ratio:.2f} times that at capacity",
                ratio <= MAX_LATENCY_RATIO,
            ),
            (f"{failed} requests were neither accepted nor rejected", failed == 0),
            (
                f"idle latency again {self.recovery_seconds:.2f} s after the overload",
                self.recovery_seconds < MAX_RECOVERY_SECONDS,
            ),
        ]


async def measure(n: int, times: float, seconds: float, retrying: int) -> OverloadResult:
    """Capacity, idle latency, load at capacity, overload, recovery."""
    generator = LoadGenerator(n)
    capacity = await generator.capacity(max(SATURATING_IMAGES // n, 2), max(seconds / 6, 3))
    await asyncio.sleep(1)  # until the queue is empty
    idle = [latency for _ in range(IDLE_PROBES) if (latency := await generator.probe()) is not None]
    at_capacity = await generator.phase(capacity, max(seconds / 3, 5))
    await asyncio.sleep(2)
    overload = await generator.phase(times * capacity, seconds, retrying)
    recovery = await generator.recovery(1.5 * max(idle))
    return OverloadResult(capacity, percentile(idle, 0.5), at_capacity, overload, recovery)


def report(result: OverloadResult, n: int) -> None:
    print(
        f"capacity {result.capacity:.1f} requests of {n} images per second; "
        f"alone {1000 * result.idle_latency:.0f} ms; load average {os.getloadavg()[0]:.1f}\n"
    )
    print(
        f"{'':<14}{'sent/s':>9}{'rejected':>9}{'accepted/s':>12}{'of capacity':>13}{'p50 ms':>9}"
        f"{'p99':>7}{'failed':>8}{'clients, cores':>15}"
    )
    for name, phase in (("at capacity", result.at_capacity), ("overload", result.overload)):
        accepted = len(phase.latencies) / phase.seconds
        print(
            f"{name:<14}{phase.sent / phase.seconds:9.0f}{phase.rejected:9.1%}{accepted:12.1f}"
            f"{accepted / result.capacity:13.2f}{1000 * percentile(phase.latencies, 0.5):9.0f}"
            f"{1000 * percentile(phase.latencies, 0.99):7.0f}{phase.failed:8}"
            f"{phase.generator_cores:15.2f}"
            + "".join(f"  {n} {k}" for k, n in phase.statuses.items() if k not in ("200", "429"))
        )
    announced = [float(seconds) for seconds in result.overload.retry_after]
    print(
        f"\nRetry-After in s: p50 {percentile(announced, 0.5):.0f}, "
        f"p99 {percentile(announced, 0.99):.0f}\n"
    )
    for sentence, met in result.targets():
        print(f"{'met   ' if met else 'MISSED'}  {sentence}")


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--n", default=16, show_default=True, help="Images in each request.")
@click.option("--times", default=10.0, show_default=True, help="Overload, relative to capacity.")
@click.option("--seconds", default=60.0, show_default=True, help="Duration of the overload.")
@click.option("--retrying", default=100, show_default=True, help="Clients that honour Retry-After.")
def main(model: Path | None, n: int, times: float, seconds: float, retrying: int) -> None:
    """Offer several times the capacity, and check latency and recovery."""
    with tempfile.TemporaryDirectory() as folder:
        file = model or untrained_model(Path(folder))
        service = [PYTHON, "-m", "service", "--models", str(file.parent.parent.parent)]
        with server("figment", [*service, "--port", str(PORT)]):
            result = uvloop.run(measure(n, times, seconds, retrying))
    report(result, n)
    sys.exit(not all(met for _, met in result.targets()))


if __name__ == "__main__":
    main()
