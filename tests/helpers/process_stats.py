"""Metrics of a running server, and the threads and file descriptors of its process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

POOL = 40
"""Concurrent clients: more than asyncio has threads for work outside of batches."""


class Figures:
    """Snapshot of ``GET /metrics``."""

    def __init__(self, server: Server) -> None:
        text = server.client.get("/metrics").text
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Sum of ``figment_NAME`` or ``process_NAME`` with these labels; 0 if there is none."""
        wanted = labels.items()
        return sum(
            value
            for (found, has), value in self._values.items()
            if found in (f"figment_{name}", f"process_{name}") and wanted <= has
        )


def metric(server: Server, name: str, **labels: str) -> float:
    """Sum of all samples with this full name and these labels in ``GET /metrics``."""
    exposition = httpx.get(f"{server.url}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def warm(server: Server) -> None:
    """Make the service start all its threads and load all modules that it imports late."""

    def fetch_set(_: int) -> None:
        once = {"Connection": "close"}
        answer = server.client.post("/generate?format=zip", json={"n": 9}, headers=once)
        answer.raise_for_status()

    with ThreadPoolExecutor(POOL) as pool:
        list(pool.map(fetch_set, range(2 * POOL)))
    for format_ in ("json", "webp", "npy", "zip", "webdataset", "parquet"):
        server.client.post(f"/generate?format={format_}", json={"n": 3}).raise_for_status()


@contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """Assert that the server still serves afterwards, with no leaked thread, file or image."""
    process = psutil.Process(server.process.pid)
    Figures(server)  # opens the connection that all further requests use
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

    wait_until(at_rest)
    wait_until(lambda: process.num_threads() <= before[0])
    wait_until(lambda: process.num_fds() <= before[1])
    wait_until(
        lambda: abs(Figures(server)("open_fds") - process.num_fds()) <= 1
    )  # the one that counts them
