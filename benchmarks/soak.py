"""Ten minutes of mixed load: memory, handles, threads and latency must stay stable.

    python -m benchmarks.soak [--seconds 600] [--warm-up 120] [--callers 12]

Starts the service on a copy of the shipped models. Clients use all endpoints, with pauses; they
abandon sets, send invalid requests, connect and disconnect. Every few seconds a model version is
added or removed, and the models are reloaded. Prints per minute the latency of a single image,
memory, handles and threads. Exits with 1 if memory grows by a megabyte per minute after the
warm-up, or if a valid request failed.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import uvloop

from benchmarks.callers import Answer, Connection, Cut, Pool, Refused, percentile, request
from benchmarks.serve import PORTS, PYTHON, ROOT, server

PORT = PORTS["figment"]
SLOPE = 1.0
"""Largest allowed growth of memory, in megabytes per minute."""
MEGABYTE = 1 << 20
PAUSE = 0.25
"""Mean seconds between two requests of a client."""
RELOAD = 5.0
"""Seconds between two reloads."""
SETS = ("zip", "webdataset", "parquet", "npy")
FACES, DIGITS = "anime-faces", "digits"
LABELS = ("red eyes", "blue eyes", "blonde hair", "black hair, green eyes")
GET = ("/", "/docs", "/openapi.json", "/models", f"/models/{FACES}/labels", "/info", "/metrics")
GARBAGE = (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"POST /generate HTTP/1.1\r\nHos")
ALONE = "one image"
"""Kind of request whose latency is reported."""


@dataclass
class Sample:
    """State of the server process. ``at``: seconds since the start; ``memory`` in megabytes."""

    at: float
    memory: float
    handles: int
    threads: int


@dataclass
class Soak:
    seconds: float
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts by kind of request and outcome."""
    unexpected: Counter[str] = field(default_factory=Counter)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """(Start, duration) of each request for a single image, in seconds."""
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self._pool = Pool(PORT)
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            ALONE: (8, self._one_image),
            "several": (5, self._several),
            "conditional": (4, self._conditional),
            "verified": (2, self._verified),
            "address": (6, self._address),
            "film": (2, self._film),
            "variations": (2, self._variations),
            "set": (2, self._set),
            "set, left": (2, self._set_left),
            "page": (3, self._page),
            "wrong": (4, self._wrong),
            "garbage": (2, self._garbage),
        }

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    async def caller(self) -> None:
        names = list(self._kinds)
        weights = [weight for weight, _ in self._kinds.values()]
        while self.now < self.seconds:
            (kind,) = self.chance.choices(names, weights)
            try:
                await self._kinds[kind][1]()
            except (Cut, Refused, TimeoutError) as error:
                self.unexpected[f"{kind}: {type(error).__name__}"] += 1
            await asyncio.sleep(self.chance.expovariate(1 / PAUSE))

    async def reload(self, models: Path) -> None:
        """Version of the digits that is added and removed."""
        source, target = models / DIGITS / "2", models / DIGITS / "3"
        while self.now < self.seconds:
            await asyncio.sleep(RELOAD)
            if target.exists():
                shutil.rmtree(target)
            else:
                shutil.copytree(source, models / ".coming")
                (models / ".coming").rename(target)
            await self._expect("reload", request("/models/reload", b""), 200)

    async def watch(self, process: psutil.Process) -> None:
        while self.now < self.seconds:
            with process.oneshot():
                memory = process.memory_info().rss / MEGABYTE
                handles, threads = process.num_fds(), process.num_threads()
            self.samples.append(Sample(self.now, memory, handles, threads))
            await asyncio.sleep(1)

    async def _expect(self, kind: str, content: bytes, *statuses: int, **options: Any) -> Answer:
        """Send a request; a rejection with Retry-After is always valid."""
        options = {"keep": False} | options
        if self.chance.random() < 0.3:
            connection = await Connection.open(PORT)
            answer = await connection.exchange(content, **options)
            connection.close()
        else:
            answer = await self._pool.exchange(content, **options)
        self.counted[kind, str(answer.status)] += 1
        if answer.status not in (*statuses, 429):
            self.unexpected[f"{kind}: {answer.status}"] += 1
        return answer

    def _seed(self) -> int:
        return self.chance.randrange(1 << 40)

    # Kinds of requests.

    async def _one_image(self) -> None:
        at = self.now
        body = {"seed": self._seed(), "model": FACES}
        answer = await self._expect(ALONE, request("/generate", body), 200)
        if answer.status == 200:
            self.latencies.append((at, answer.seconds))

    async def _several(self) -> None:
        model = self.chance.choice((FACES, f"{FACES}-free", DIGITS))
        body = {"n": self.chance.randint(1, 64), "model": model}
        await self._expect("several", request("/generate", body), 200)

    async def _conditional(self) -> None:
        label = self.chance.choice(LABELS)
        body = {"n": self.chance.randint(1, 16), "label": label, "model": FACES}
        path = "/generate/conditional?format=" + self.chance.choice(("json", "png", "webp", "jpeg"))
        await self._expect("conditional", request(path, body), 200)

    async def _verified(self) -> None:
        body = {"n": 4, "label": self.chance.choice(LABELS), "verify": 0.5, "model": FACES}
        await self._expect("verified", request("/generate", body), 200)

    async def _address(self) -> None:
        ending = self.chance.choice(("png", "webp", "jpeg"))
        path = f"/images/{FACES}/2/{self._seed()}/{self.chance.randrange(1000)}.{ending}"
        await self._expect("address", request(f"{path}?label=red+eyes"), 200)

    async def _film(self) -> None:
        ends = {name: {"seed": self._seed()} for name in ("from", "to")}
        path = "/interpolate?format=" + self.chance.choice(("gif", "webp", "png", "json"))
        await self._expect("film", request(path, {**ends, "steps": 8, "model": FACES}), 200)

    async def _variations(self) -> None:
        body = {"of": {"seed": self._seed()}, "n": 8, "model": FACES}
        await self._expect("variations", request("/variations", body), 200)

    def _set_of(self, n: int) -> bytes:
        path = "/generate?format=" + self.chance.choice(SETS)
        model = self.chance.choice((FACES, DIGITS))
        return request(path, {"n": n, "seed": self._seed(), "model": model})

    async def _set(self) -> None:
        await self._expect("set", self._set_of(self.chance.randint(1, 300)), 200)

    async def _set_left(self) -> None:
        """Disconnect half-way, or before the response starts."""
        content = self._set_of(100_000)
        if self.chance.random() < 0.3:
            connection = await Connection.open(PORT)
            task = asyncio.create_task(connection.exchange(content, keep=False))
            await asyncio.sleep(self.chance.uniform(0, 0.1))
            connection.close()
            await asyncio.gather(task, return_exceptions=True)
            self.counted["set, left", "at once"] += 1
        else:
            most = self.chance.randint(1, MEGABYTE)
            await self._expect("set, left", content, 200, most=most)

    async def _page(self) -> None:
        await self._expect("page", request(self.chance.choice(GET)), 200)

    async def _wrong(self) -> None:
        content, status = self.chance.choice(
            (
                (request("/generate", b'{"n": '), 400),
                (request("/generate", {"n": 0}), 422),
                (request("/generate", {"label": "purple moustache"}), 422),
                (request("/generate", {"model": "none"}), 404),
                (request("/generate?format=bmp", {"n": 1}), 406),
                (request("/generate", {"n": 100_000}), 422),
                (request(f"/images/{FACES}/99/1/1.png"), 404),
                (request("/nothing"), 404),
                (request("/generate", b" " * (2 * MEGABYTE), close=True), 413),
            )
        )
        await self._expect("wrong", content, status)

    async def _garbage(self) -> None:
        """Send invalid or partial requests, and open idle connections."""
        connection = await Connection.open(PORT)
        connection.send(self.chance.choice((b"", *GARBAGE)))
        await asyncio.sleep(self.chance.uniform(0, 1))
        connection.close()
        self.counted["garbage", "left"] += 1


async def soak(process: psutil.Process, models: Path, seconds: float, callers: int) -> Soak:
    found = Soak(seconds)
    every = [found.caller() for _ in range(callers)]
    await asyncio.gather(found.watch(process), found.reload(models), *every)
    return found


def slope(samples: list[Sample], warm_up: float) -> float:
    """Growth in megabytes per minute: slope of a linear fit after the warm-up."""
    later = [sample for sample in samples if sample.at >= warm_up]
    at = [sample.at / 60 for sample in later]
    return float(np.polyfit(at, [sample.memory for sample in later], 1)[0])


def report(found: Soak, warm_up: float) -> None:
    print(
        f"{'minute':>6}{'images':>8}{'p50 ms':>8}{'p99':>7}{'memory MB':>11}{'most':>6}"
        f"{'handles':>9}{'most':>6}{'threads':>9}"
    )
    for minute in range(int(found.samples[-1].at // 60) + 1):
        samples = [sample for sample in found.samples if sample.at // 60 == minute]
        taken = [1000 * seconds for at, seconds in found.latencies if at // 60 == minute]
        memory = [sample.memory for sample in samples]
        handles = [float(sample.handles) for sample in samples]
        print(
            f"{minute + 1:6}{len(taken):8}{percentile(taken, 0.5):8.0f}"
            f"{percentile(taken, 0.99):7.0f}{percentile(memory, 0.5):11.0f}{max(memory):6.0f}"
            f"{percentile(handles, 0.5):9.0f}{max(handles):6.0f}"
            f"{max(sample.threads for sample in samples):9}"
        )
    print()
    for kind in dict.fromkeys(kind for kind, _ in sorted(found.counted)):
        counts = {what: n for (each, what), n in sorted(found.counted.items()) if each == kind}
        print(f"{kind:<14}{', '.join(f'{n} {what}' for what, n in counts.items())}")
    print(f"\nload average {os.getloadavg()[0]:.1f}; memory is fitted after {warm_up:g} s")


@click.command()
@click.option("--seconds", default=600.0)
@click.option("--warm-up", default=120.0, help="Seconds that are left out of the fit.")
@click.option("--callers", default=12)
def main(seconds: float, warm_up: float, callers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        shutil.copytree(ROOT / "models", models)
        command = [PYTHON, "-m", "service", "--models", str(models), "--port", str(PORT)]
        with server("figment", command) as (process, _):
            found = uvloop.run(soak(process, models, seconds, callers))
    report(found, warm_up)
    grows = slope(found.samples, warm_up)
    failed = sum(found.unexpected.values())
    print(f"{'met   ' if grows < SLOPE else 'MISSED'}  memory grows by {grows:.2f} MB a minute")
    print(
        f"{'MISSED' if failed else 'met   '}  {failed} failed that should not have "
        f"{dict(found.unexpected) or ''}"
    )
    sys.exit(grows >= SLOPE or failed > 0)


if __name__ == "__main__":
    main()
