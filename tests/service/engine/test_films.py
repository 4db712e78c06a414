"""Films and sheets under load: encoding is queued, counted and given up like computing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.helpers.server import Server, serve

pytestmark = pytest.mark.server

TIMEOUT_SECONDS = 120
"""On a fast machine, 6 are enough."""
FILM = {
    "from": {"seed": 1, "label": "red eyes"},
    "to": {"seed": 2, "label": "blue eyes"},
    "steps": 256,
}
SHEET = {"n": 1024, "seed": 1, "label": "red eyes"}


@pytest.fixture(scope="module")
def patient(face_models: Path) -> Iterator[Server]:
    with serve("--models", str(face_models), "--timeout", str(TIMEOUT_SECONDS)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/interpolate?format=gif", FILM),
        ("/generate?format=webp", SHEET),
    ],
)
def test_thirty_of_the_largest_at_once(patient: Server, path: str, body: dict[str, object]) -> None:
    """Each is answered or rejected within the timeout; probes are answered meanwhile."""

    def ask(number: int) -> tuple[int, float]:
        before = time.monotonic()
        answer = httpx.post(patient.url + path, json=body, timeout=2 * TIMEOUT_SECONDS)
        return answer.status_code, time.monotonic() - before

    with ThreadPoolExecutor(30) as pool:
        asked = [pool.submit(ask, number) for number in range(30)]
        while not all(each.done() for each in asked):
            assert patient.client.get("/readyz", timeout=10).status_code == 200
            time.sleep(0.05)
        found = [each.result() for each in asked]
    assert {status for status, _ in found} <= {200, 429}
    assert sum(status == 200 for status, _ in found) >= 1
    assert max(seconds for _, seconds in found) < TIMEOUT_SECONDS
