"""Stability under mixed load: memory, handles, threads and latency.

    python -m benchmarks.soak [--seconds 600] [--warm-up 240] [--clients 12]

Needs the free port 8765; takes ten minutes by default. Starts the service on a copy of the shipped
models. Clients use all endpoints, with pauses; some disconnect within a set, send invalid requests,
or open a connection and close it. Every few seconds a model version is added or removed, and the
models are reloaded. Prints per minute the latency of a single image, memory, handles and threads.
Exits with 1 if memory grows by a megabyte per minute after the warm-up or exceeds 400 MB, or if a
valid request failed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
import psutil
import uvloop

from benchmarks.load import (
    Connection,
    ConnectionCut,
    ConnectionPool,
    ConnectionRefused,
    Response,
    percentile,
    request,
)
from benchmarks.serve import PORTS, PYTHON, ROOT, server

PORT = PORTS["figment"]
MAX_GROWTH_MB_PER_MINUTE = 1.0
MAX_MEMORY_MB = 400
MALLOC = ("env", "MALLOC_MMAP_THRESHOLD_=1048576", "MALLOC_TRIM_THRESHOLD_=1048576")
"""As ``make serve``, the container image and the systemd unit set them."""
MEGABYTE = 1 << 20
MEAN_PAUSE_SECONDS = 0.25
"""Mean pause of a client between two requests."""
RELOAD_INTERVAL_SECONDS = 5.0
NEW_CONNECTION_SHARE = 0.3
"""Share of requests over a new connection instead of a pooled one."""
SET_FORMATS = ("zip", "webdataset", "parquet", "npy")
FACES, DIGITS = "anime-faces", "digits"
LABELS = ("red eyes", "blue eyes", "blonde hair", "black hair, green eyes")
PAGES = ("/", "/docs", "/openapi.json", "/models", f"/models/{FACES}/labels", "/info", "/metrics")
GARBAGE = (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"POST /generate HTTP/1.1\r\nHos")
"""TLS, an invalid request line, and the start of a request."""
ONE_IMAGE = "one image"
"""Kind of request whose latency is reported."""


@dataclass
class ProcessSample:
    """State of the server process at one time."""

    at: float
    """Seconds since the start."""
    memory: float
    """Resident MiB."""
    handles: int
    """Open file descriptors."""
    threads: int


@dataclass
class Soak:
    """Mixed load for ``seconds``, and its outcomes."""

    seconds: float
    random: Random = field(default_factory=lambda: Random(11))
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts by kind of request and outcome."""
    unexpected: Counter[str] = field(default_factory=Counter)
    """Counts of failures of valid requests, and of wrong statuses for invalid ones."""
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """(Start, duration) of each accepted request for a single image, in seconds."""
    samples: list[ProcessSample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self._pool = ConnectionPool(PORT)
        # Relative frequency and method of each kind.
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            ONE_IMAGE: (8, self._one_image),
            "several": (5, self._several),
            "conditional": (4, self._conditional),
            "verified": (2, self._verified),
            "address": (6, self._address),
            "interpolation": (2, self._interpolation),
            "variations": (2, self._variations),
            "set": (2, self._set),
            "set, cut": (2, self._set_cut),
            "page": (3, self._page),
            "invalid": (4, self._invalid),
            "garbage": (2, self._garbage),
        }

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    async def client(self) -> None:
        """Send requests of random kinds, with pauses."""
        names = list(self._kinds)
        weights = [weight for weight, _ in self._kinds.values()]
        while self.now < self.seconds:
            (kind,) = self.random.choices(names, weights)
            try:
                await self._kinds[kind][1]()
            except (ConnectionCut, ConnectionRefused, TimeoutError) as error:
                self.unexpected[f"{kind}: {type(error).__name__}"] += 1
            await asyncio.sleep(self.random.expovariate(1 / MEAN_PAUSE_SECONDS))

    async def reload(self, models: Path) -> None:
        """Alternately add and remove a version of the digits, and reload the models."""
        source, target = models / DIGITS / "2", models / DIGITS / "3"
        while self.now < self.seconds:
            await asyncio.sleep(RELOAD_INTERVAL_SECONDS)
            if target.exists():
                shutil.rmtree(target)
            else:
                shutil.copytree(source, models / ".incomplete")
                (models / ".incomplete").rename(target)
            await self._expect("reload", request("/models/reload", b""), 200)

    async def sample(self, process: psutil.Process) -> None:
        """Record memory, handles and threads of the server once per second."""
        while self.now < self.seconds:
            with process.oneshot():
                memory = process.memory_info().rss / MEGABYTE
                handles, threads = process.num_fds(), process.num_threads()
            self.samples.append(ProcessSample(self.now, memory, handles, threads))
            await asyncio.sleep(1)

    async def _expect(self, kind: str, content: bytes, status: int, **options: Any) -> Response:
        """Send a request and record its outcome; ``status`` and 429 are expected.

        options: of ``Connection.exchange``.
        """
        options = {"keep_body": False} | options
        if self.random.random() < NEW_CONNECTION_SHARE:
            connection = await Connection.open(PORT)
            response = await connection.exchange(content, **options)
            connection.close()
        else:
            response = await self._pool.exchange(content, **options)
        self.outcomes[kind, str(response.status)] += 1
        if response.status not in (status, 429):
            self.unexpected[f"{kind}: {response.status}"] += 1
        return response

    def _seed(self) -> int:
        return self.random.randrange(1 << 40)

    # Kinds of requests.

    async def _one_image(self) -> None:
        at = self.now
        body = {"seed": self._seed(), "model": FACES}
        response = await self._expect(ONE_IMAGE, request("/generate", body), 200)
        if response.status == 200:
            self.latencies.append((at, response.seconds))

    async def _several(self) -> None:
        model = self.random.choice((FACES, f"{FACES}-free", DIGITS))
        body = {"n": self.random.randint(1, 64), "model": model}
        await self._expect("several", request("/generate", body), 200)

    async def _conditional(self) -> None:
        label = self.random.choice(LABELS)
        body = {"n": self.random.randint(1, 16), "label": label, "model": FACES}
        path = "/generate/conditional?format=" + self.random.choice(("json", "png", "webp", "jpeg"))
        await self._expect("conditional", request(path, body), 200)

    async def _verified(self) -> None:
        body = {"n": 4, "label": self.random.choice(LABELS), "verify": 0.5, "model": FACES}
        await self._expect("verified", request("/generate", body), 200)

    async def _address(self) -> None:
        suffix = self.random.choice(("png", "webp", "jpeg"))
        path = f"/images/{FACES}/2/{self._seed()}/{self.random.randrange(1000)}.{suffix}"
        await self._expect("address", request(f"{path}?label=red+eyes"), 200)

    async def _interpolation(self) -> None:
        ends = {name: {"seed": self._seed()} for name in ("from", "to")}
        path = "/interpolate?format=" + self.random.choice(("gif", "webp", "png", "json"))
        body = {**ends, "steps": 8, "model": FACES}
        await self._expect("interpolation", request(path, body), 200)

    async def _variations(self) -> None:
        body = {"of": {"seed": self._seed()}, "n": 8, "model": FACES}
        await self._expect("variations", request("/variations", body), 200)

    def _set_request(self, n: int) -> bytes:
        path = "/generate?format=" + self.random.choice(SET_FORMATS)
        model = self.random.choice((FACES, DIGITS))
        return request(path, {"n": n, "seed": self._seed(), "model": model})

    async def _set(self) -> None:
        await self._expect("set", self._set_request(self.random.randint(1, 300)), 200)

    async def _set_cut(self) -> None:
        """Disconnect within the first megabyte, or before the response starts."""
        content = self._set_request(100_000)
        if self.random.random() < 0.3:
            connection = await Connection.open(PORT)
            task = asyncio.create_task(connection.exchange(content, keep_body=False))
            await asyncio.sleep(self.random.uniform(0, 0.1))
            connection.close()
            await asyncio.gather(task, return_exceptions=True)
            self.outcomes["set, cut", "at once"] += 1
        else:
            max_bytes = self.random.randint(1, MEGABYTE)
            await self._expect("set, cut", content, 200, max_bytes=max_bytes)

    async def _page(self) -> None:
        await self._expect("page", request(self.random.choice(PAGES)), 200)

    async def _invalid(self) -> None:
        content, status = self.random.choice(
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
        await self._expect("invalid", content, status)

    async def _garbage(self) -> None:
        """Send invalid or partial requests, and open idle connections."""
        connection = await Connection.open(PORT)
        connection.send(self.random.choice((b"", *GARBAGE)))
        await asyncio.sleep(self.random.uniform(0, 1))
        connection.close()
        self.outcomes["garbage", "disconnected"] += 1


async def run_soak(process: psutil.Process, models: Path, seconds: float, clients: int) -> Soak:
    """Run all clients, the reloads and the sampling for ``seconds``."""
    soak = Soak(seconds)
    all_clients = [soak.client() for _ in range(clients)]
    await asyncio.gather(soak.sample(process), soak.reload(models), *all_clients)
    return soak


def memory_growth(samples: list[ProcessSample], warm_up: float) -> float:
    """Slope of a linear fit after ``warm_up`` seconds, in megabytes per minute."""
    later = [sample for sample in samples if sample.at >= warm_up]
    minutes = [sample.at / 60 for sample in later]
    return float(np.polyfit(minutes, [sample.memory for sample in later], 1)[0])


def report(soak: Soak, warm_up: float) -> None:
    print(
        f"{'minute':>6}{'images':>8}{'p50 ms':>8}{'p99':>7}{'memory MB':>11}{'most':>6}"
        f"{'handles':>9}{'most':>6}{'threads':>9}"
    )
    for minute in range(int(soak.samples[-1].at // 60) + 1):
        samples = [sample for sample in soak.samples if sample.at // 60 == minute]
        times = [1000 * seconds for at, seconds in soak.latencies if at // 60 == minute]
        memory = [sample.memory for sample in samples]
        handles = [float(sample.handles) for sample in samples]
        print(
            f"{minute + 1:6}{len(times):8}{percentile(times, 0.5):8.0f}"
            f"{percentile(times, 0.99):7.0f}{percentile(memory, 0.5):11.0f}{max(memory):6.0f}"
            f"{percentile(handles, 0.5):9.0f}{max(handles):6.0f}"
            f"{max(sample.threads for sample in samples):9}"
        )
    print()
    by_kind: dict[str, list[str]] = {}
    for (kind, outcome), count in sorted(soak.outcomes.items()):
        by_kind.setdefault(kind, []).append(f"{count} {outcome}")
    for kind, counts in by_kind.items():
        print(f"{kind:<14}{', '.join(counts)}")
    print(f"\nload average {os.getloadavg()[0]:.1f}; memory is fitted after {warm_up:g} s")


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="Duration of the load.")
@click.option(
    "--warm-up", default=240.0, show_default=True, help="Seconds that the fit of memory leaves out."
)
@click.option("--clients", default=12, show_default=True, help="Concurrent clients.")
def main(seconds: float, warm_up: float, clients: int) -> None:
    """Load the service with requests of all kinds, and check memory and failures."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        shutil.copytree(ROOT / "models", models)
        command = [*MALLOC, PYTHON, "-m", "service", "--models", str(models), "--port", str(PORT)]
        with server("figment", command) as (process, _):
            soak = uvloop.run(run_soak(process, models, seconds, clients))
    report(soak, warm_up)
    growth = memory_growth(soak.samples, warm_up)
    peak = max(sample.memory for sample in soak.samples)
    stable = growth < MAX_GROWTH_MB_PER_MINUTE and peak < MAX_MEMORY_MB
    failed = sum(soak.unexpected.values())
    verdict = "met   " if stable else "MISSED"
    print(f"{verdict}  memory grows by {growth:.2f} MB per minute, peak {peak:.0f} MB")
    print(
        f"{'MISSED' if failed else 'met   '}  {failed} unexpected outcomes "
        f"{dict(soak.unexpected) or ''}"
    )
    sys.exit(not stable or failed > 0)


if __name__ == "__main__":
    main()
