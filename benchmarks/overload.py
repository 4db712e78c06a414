"""What becomes of requests when far more come than can be answered.

    python -m benchmarks.overload [--model FILE] [--times 10] [--seconds 60] [--n 16]

Starts the service, finds what it can do at most, and then asks for just that, and for ``--times``
as much. Those who ask come at random times (a Poisson process) and never come back, but for some
who do what a refusal tells them, and ask once more when it says. Every caller asks for images of
its own. Ends with status 1 where one of the targets is missed.
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
"""Images that are under way while the capacity is found."""
PAUSE = 0.05
"""Seconds, should one of them be refused."""
LATENCY = 2.0
"""At most so many times that at capacity: the 99th percentile of those that are accepted."""
FACTOR = 2.0
PROVEN = 0.95
"""The share of promises that prove right within that factor."""
RECOVERY = 2.0
"""Seconds."""
IDLE_PROBES = 30
AFTER = 6.0
"""Seconds in which the server is watched afterwards."""

_seeds = itertools.count()


@dataclass
class Wait:
    """Of one caller who comes back as told."""

    told: float
    """At the first refusal."""
    truth: float | None = None
    """From there until it asked and was accepted."""
    refusals: int = 1


@dataclass
class Seen:
    """What came of the requests of a phase."""

    latencies: list[float] = field(default_factory=list)
    """Of those that were accepted, in seconds since they were due."""
    statuses: dict[str, int] = field(default_factory=dict)
    told: list[int] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    seconds: float = 0
    busy: float = 0
    """Share of a core that those who ask took."""

    @property
    def asked(self) -> int:
        return sum(self.statuses.values())

    @property
    def refused(self) -> float:
        return self.statuses.get("429", 0) / self.asked

    @property
    def failed(self) -> int:
        """Neither accepted nor told to come back."""
        return sum(count for kind, count in self.statuses.items() if kind not in ("200", "429"))


class Callers:
    """All who ask for ``n`` images each."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._pool = Pool(PORT)
        self._random = random.Random(5)
        self.seen = Seen()

    def fresh(self) -> bytes:
        """A request that nobody has made before."""
        return request("/generate", {"n": self._n, "seed": next(_seeds)})

    async def ask(self, content: bytes, due: float) -> int | None:
        """Seconds to wait; 0 where it was accepted, None where it failed."""
        seen = self.seen
        try:
            answer = await self._pool.ask(content, keep=False)
            kind = str(answer.status)
        except (Cut, Refused, TimeoutError) as error:
            kind = type(error).__name__
        seen.statuses[kind] = seen.statuses.get(kind, 0) + 1
        if kind == "200":
            seen.latencies.append(time.perf_counter() - due)
            return 0
        if kind == "429":
            seen.told.append(answer.retry_after)
            return answer.retry_after
        return None

    async def at_random(self, rate: float, seconds: float) -> None:
        """So many requests a second, whatever becomes of them."""
        due = time.perf_counter()
        end = due + seconds
        tasks: set[asyncio.Task[int | None]] = set()
        while (due := due + self._random.expovariate(rate)) < end:
            early = due - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(self.ask(self.fresh(), due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def patiently(self, seconds: float) -> None:
        """One caller who does as it is told, with another request after each that is answered."""
        started = time.perf_counter()
        end = started + seconds
        await asyncio.sleep(self._random.random())
        while time.perf_counter() < end:
            content = self.fresh()
            wait: Wait | None = None
            refused = 0.0
            while (asked := time.perf_counter()) < end:
                told = await self.ask(content, asked)
                if told is None:
                    break
                if told == 0:
                    if wait is not None:
                        wait.truth = asked - refused
                    break
                now = time.perf_counter()
                if wait is None:
                    wait, refused = Wait(told), now
                    if now + FACTOR * told < end:  # else the end comes before the proof
                        self.seen.waits.append(wait)
                else:
                    wait.refusals += 1
                await asyncio.sleep(min(told, max(0, end - now)))

    async def saturate(self, connections: int, seconds: float) -> float:
        """Requests answered in a second to callers who ask again as soon as they are."""
        self.seen = Seen()
        started = time.perf_counter()

        async def again_and_again() -> None:
            while (now := time.perf_counter()) < started + seconds:
                if await self.ask(self.fresh(), now) != 0:
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
        """Seconds of one request; None if it was not accepted."""
        asked = time.perf_counter()
        told = await self.ask(self.fresh(), asked)
        return None if told != 0 else time.perf_counter() - asked

    async def recovery(self, normal: float) -> float:
        """Seconds until no request is refused any more, nor takes longer than ``normal``.

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
    """Requests per second."""
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
            (f"{proven:.1%} of the waits were as told, within {FACTOR:g}", proven >= PROVEN),
            (f"as idle again {self.recovery:.2f} s after the end", self.recovery < RECOVERY),
        ]


def _proven(waits: list[Wait]) -> float:
    right = [
        wait.truth is not None and wait.told / FACTOR <= wait.truth <= wait.told * FACTOR
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
        f"{'':<14}{'asked/s':>9}{'refused':>9}{'accepted/s':>12}{'of capacity':>13}{'p50 ms':>9}"
        f"{'p99':>7}{'failed':>8}{'asking, cores':>15}"
    )
    for name, seen in (("at capacity", figures.at), ("overload", figures.over)):
        accepted = len(seen.latencies) / seen.seconds
        print(
            f"{name:<14}{seen.asked / seen.seconds:9.0f}{seen.refused:9.1%}{accepted:12.1f}"
            f"{accepted / figures.capacity:13.2f}{1000 * percentile(seen.latencies, 0.5):9.0f}"
            f"{1000 * percentile(seen.latencies, 0.99):7.0f}{seen.failed:8}{seen.busy:15.2f}"
            + "".join(f"  {n} {k}" for k, n in seen.statuses.items() if k not in ("200", "429"))
        )
    told = [float(seconds) for seconds in figures.over.told]
    waits = figures.over.waits
    again = [float(wait.refusals) for wait in waits]
    factors = [wait.truth / wait.told for wait in waits if wait.truth is not None]
    print(
        f"\ntold to wait, s: p50 {percentile(told, 0.5):.0f}, p99 {percentile(told, 0.99):.0f}; "
        f"{len(waits)} who came back when told waited p5 {percentile(factors, 0.05):.2f}, "
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
@click.option("--patient", default=100, help="Callers who come back when they are told to.")
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
