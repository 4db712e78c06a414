"""Behaviour under overload: latency, rejected requests, Retry-After, recovery.

    python -m benchmarks.overload [--model FILE] [--times 10] [--seconds 60] [--n 16]

Starts the service, measures its capacity, then offers that load and ``--times`` as much. Requests
arrive at random times (a Poisson process) and are not retried, except by some clients that retry
after Retry-After. Each request has its own seed. Exits with 1 if a target is missed.
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

from benchmarks.callers import Cut, Pool, Refused, percentile, request
from benchmarks.serve import PORTS, PYTHON, server, untrained

PORT = PORTS["figment"]
SATURATING = 128
"""Concurrent images while the capacity is measured."""
PAUSE = 0.05
"""Seconds to pause after a rejected request."""
LATENCY = 2.0
"""Largest allowed 99th percentile of accepted requests, relative to that at capacity."""
FACTOR = 2.0
PROVEN = 0.95
"""Required share of Retry-After values that are right within ``FACTOR``."""
RECOVERY = 2.0
"""Largest allowed recovery time in seconds."""
IDLE_PROBES = 30
AFTER = 6.0
"""Seconds of observation after the load."""

_seeds = itertools.count()


@dataclass
class Wait:
    """Retry-After of one client that honours it."""

    delay: float
    """Retry-After at the first rejection, in seconds."""
    truth: float | None = None
    """Seconds from the first rejection to the accepted request."""
    refusals: int = 1


@dataclass
class Seen:
    """Outcomes of the requests of one phase."""

    latencies: list[float] = field(default_factory=list)
    """Latencies of accepted requests, in seconds since they were due."""
    statuses: dict[str, int] = field(default_factory=dict)
    delay: list[int] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    seconds: float = 0
    busy: float = 0
    """Share of a core used by the load generator."""

    @property
    def offered(self) -> int:
        """Number of requests sent."""
        return sum(self.statuses.values())

    @property
    def refused(self) -> float:
        return self.statuses.get("429", 0) / self.offered

    @property
    def failed(self) -> int:
        """Requests neither accepted nor rejected with Retry-After."""
        return sum(count for kind, count in self.statuses.items() if kind not in ("200", "429"))


class Callers:
    """Load generator of requests for ``n`` images."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._pool = Pool(PORT)
        self._random = random.Random(5)
        self.seen = Seen()

    def fresh(self) -> bytes:
        """New request with a fresh seed."""
        return request("/generate", {"n": self._n, "seed": next(_seeds)})

    async def attempt(self, content: bytes, due: float) -> int | None:
        """Seconds to wait before a retry; 0 if accepted, None if failed."""
        seen = self.seen
        try:
            answer = await self._pool.exchange(content, keep=False)
            kind = str(answer.status)
        except (Cut, Refused, TimeoutError) as error:
            kind = type(error).__name__
        seen.statuses[kind] = seen.statuses.get(kind, 0) + 1
        if kind == "200":
            seen.latencies.append(time.perf_counter() - due)
            return 0
        if kind == "429":
            seen.delay.append(answer.retry_after)
            return answer.retry_after
        return None

    async def at_random(self, rate: float, seconds: float) -> None:
        """Open-loop load in requests per second, regardless of outcomes."""
        due = time.perf_counter()
        end = due + seconds
        tasks: set[asyncio.Task[int | None]] = set()
        while (due := due + self._random.expovariate(rate)) < end:
            early = due - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(self.attempt(self.fresh(), due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def patiently(self, seconds: float) -> None:
        """Closed-loop client that honours Retry-After."""
        started = time.perf_counter()
        end = started + seconds
        await asyncio.sleep(self._random.random())
        while time.perf_counter() < end:
            content = self.fresh()
            wait: Wait | None = None
            refused = 0.0
            while (sent := time.perf_counter()) < end:
                delay = await self.attempt(content, sent)
                if delay is None:
                    break
                if delay == 0:
                    if wait is not None:
                        wait.truth = sent - refused
                    break
                now = time.perf_counter()
                if wait is None:
                    wait, refused = Wait(delay), now
                    if now + FACTOR * delay < end:  # otherwise the phase ends before the retry
                        self.seen.waits.append(wait)
                else:
                    wait.refusals += 1
                await asyncio.sleep(min(delay, max(0, end - now)))

    async def saturate(self, connections: int, seconds: float) -> float:
        """Capacity: responses per second to closed-loop clients."""
        self.seen = Seen()
        started = time.perf_counter()

        async def again_and_again() -> None:
            while (now := time.perf_counter()) < started + seconds:
                if await self.attempt(self.fresh(), now) != 0:
                    await asyncio.sleep(PAUSE)

        await asyncio.gather(*(again_and_again() for _ in range(connections)))
        return len(self.seen.latencies) / (time.perf_counter() - started)

    async def phase(self, rate: float, seconds: float, patient: int = 0) -> Seen:
        self.seen = Seen()
        started, busy = time.perf_counter(), time.process_time()
        await asyncio.gather(
            self.at_random(rate, seconds), *(self.patiently(seconds) for _ in range(patient))
        )
        self.seen.seconds = time.perf_counter() - started
        self.seen.busy = (time.process_time() - busy) / self.seen.seconds
        return self.seen

    async def alone(self) -> float | None:
        """Latency of one request in seconds; None if it was not accepted."""
        sent = time.perf_counter()
        delay = await self.attempt(self.fresh(), sent)
        return None if delay != 0 else time.perf_counter() - sent

    async def recovery(self, normal: float) -> float:
        """Seconds until no request is rejected or takes longer than ``normal``.

        One slow request among many is not counted: it comes from what else the machine does.
        """
        started = time.perf_counter()
        times: list[tuple[float, bool]] = []
        while (now := time.perf_counter() - started) < AFTER:
            taken = await self.alone()
            times.append((now, taken is not None and taken <= normal))
            await asyncio.sleep(0.02)
        for at, _ in times:
            rest = [good for when, good in times if when >= at]
            if rest[0] and sum(rest) >= 0.97 * len(rest):
                return at
        return AFTER


@dataclass
class Figures:
    capacity: float
    """Capacity in requests per second."""
    idle: float
    at: Seen
    over: Seen
    recovery: float

    def targets(self) -> list[tuple[str, bool]]:
        ratio = percentile(self.over.latencies, 0.99) / percentile(self.at.latencies, 0.99)
        failed = self.at.failed + self.over.failed
        proven = _proven(self.over.waits)
        return [
            (f"p99 of the accepted is {ratio:.2f} times that at capacity", ratio <= LATENCY),
            (f"{failed} were neither accepted nor refused", failed == 0),
            (f"{proven:.1%} of the waits were as delay, within {FACTOR:g}", proven >= PROVEN),
            (f"as idle again {self.recovery:.2f} s after the end", self.recovery < RECOVERY),
        ]


def _proven(waits: list[Wait]) -> float:
    right = [
        wait.truth is not None and wait.delay / FACTOR <= wait.truth <= wait.delay * FACTOR
        for wait in waits
    ]
    return sum(right) / len(right) if right else float("nan")


async def measure(n: int, times: float, seconds: float, patient: int) -> Figures:
    callers = Callers(n)
    capacity = await callers.saturate(max(SATURATING // n, 2), max(seconds / 6, 3))
    await asyncio.sleep(1)
    idle = [taken for _ in range(IDLE_PROBES) if (taken := await callers.alone()) is not None]
    at = await callers.phase(capacity, max(seconds / 3, 5))
    await asyncio.sleep(2)
    over = await callers.phase(times * capacity, seconds, patient)
    recovery = await callers.recovery(1.5 * max(idle))
    return Figures(capacity, percentile(idle, 0.5), at, over, recovery)


def report(figures: Figures, n: int) -> None:
    print(
        f"capacity {figures.capacity:.1f} requests of {n} images a second; "
        f"alone {1000 * figures.idle:.0f} ms; load average {os.getloadavg()[0]:.1f}\n"
    )
    print(
        f"{'':<14}{'sent/s':>9}{'refused':>9}{'accepted/s':>12}{'of capacity':>13}{'p50 ms':>9}"
        f"{'p99':>7}{'failed':>8}{'clients, cores':>15}"
    )
    for name, seen in (("at capacity", figures.at), ("overload", figures.over)):
        accepted = len(seen.latencies) / seen.seconds
        print(
            f"{name:<14}{seen.offered / seen.seconds:9.0f}{seen.refused:9.1%}{accepted:12.1f}"
            f"{accepted / figures.capacity:13.2f}{1000 * percentile(seen.latencies, 0.5):9.0f}"
            f"{1000 * percentile(seen.latencies, 0.99):7.0f}{seen.failed:8}{seen.busy:15.2f}"
            + "".join(f"  {n} {k}" for k, n in seen.statuses.items() if k not in ("200", "429"))
        )
    delay = [float(seconds) for seconds in figures.over.delay]
    waits = figures.over.waits
    again = [float(wait.refusals) for wait in waits]
    factors = [wait.truth / wait.delay for wait in waits if wait.truth is not None]
    print(
        f"\ntold to wait, s: p50 {percentile(delay, 0.5):.0f}, p99 {percentile(delay, 0.99):.0f}; "
        f"{len(waits)} who came back when delay waited p5 {percentile(factors, 0.05):.2f}, "
        f"p50 {percentile(factors, 0.5):.2f}, p95 {percentile(factors, 0.95):.2f} times as long; "
        f"refused once more {sum(count > 1 for count in again)}, "
        f"never accepted {sum(wait.truth is None for wait in waits)}\n"
    )
    for sentence, met in figures.targets():
        print(f"{'met   ' if met else 'MISSED'}  {sentence}")


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="NAME/1/model.onnx")
@click.option("--n", default=16, help="Images in each request.")
@click.option("--times", default=10.0, help="Of its capacity.")
@click.option("--seconds", default=60.0, help="Of overload.")
@click.option("--patient", default=100, help="Callers who come back when they are delay to.")
def main(model: Path | None, n: int, times: float, seconds: float, patient: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = model or untrained(Path(folder))
        service = [PYTHON, "-m", "service", "--models", str(file.parent.parent.parent)]
        with server("figment", [*service, "--port", str(PORT)]):
            figures = uvloop.run(measure(n, times, seconds, patient))
    report(figures, n)
    sys.exit(not all(met for _, met in figures.targets()))


if __name__ == "__main__":
    main()
