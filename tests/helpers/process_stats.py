"""What a running server says of itself, and what its process holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.server import Server

PATIENCE = 60
"""Seconds until what ends by itself has ended."""
POOL = 64
"""More callers at a time than the service has threads for what is not a batch."""


class Figures:
    """``GET /metrics`` at one moment."""

    def __init__(self, server: Server) -> None:
        text = server.client.get("/metrics").text
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all of that name, of ours or of the process; 0 where there are none."""
        wanted = labels.items()
        return sum(
            value
            for (found, has), value in self._values.items()
            if found in (f"figment_{name}", f"process_{name}") and wanted <= has
        )


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def warm(server: Server) -> None:
    """Have the service start all threads that it will ever have, and load what it loads late."""

    def sheet(_: int) -> None:
        once = {"Connection": "close"}
        answer = server.client.post("/generate?format=png", json={"n": 9}, headers=once)
        answer.raise_for_status()

    with ThreadPoolExecutor(POOL) as pool:
        list(pool.map(sheet, range(2 * POOL)))
    for format_ in ("json", "webp", "npy", "zip", "webdataset", "parquet"):
        server.client.post(f"/generate?format={format_}", json={"n": 3}).raise_for_status()


@contextmanager
def unharmed(server: Server, threads: int = 0) -> Iterator[None]:
    """Whatever happens within: it serves as before, and nothing is left of it.

    ``threads``: so many hang, which nothing can end.
    """
    process = psutil.Process(server.process.pid)
    Figures(server)  # over the connection on which all is asked that follows
    before = process.num_threads(), process.num_fds()
    yield
    for _ in range(3):
        answer = server.client.post("/generate", json={"n": 20, "seed": 3})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["images"]) == 20
    assert server.client.get("/readyz").status_code == 200

    def at_rest() -> bool:
        figures = Figures(server)
        return not any(figures(name) for name in ("queue_images", "streams"))

    until(at_rest)
    until(lambda: process.num_threads() <= before[0] + threads)
    until(lambda: process.num_fds() <= before[1])
    until(
        lambda: abs(Figures(server)("open_fds") - process.num_fds()) <= 1
    )  # the one to count them
