"""Clients that disconnect at every stage of a request leak nothing."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.process_stats import Figures, unharmed, warm
from tests.helpers.server import Server, serve
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: to close resets the connection."""
EYES = {"label": "red eyes", "verify": 0.5}
FACES = {"seed": 1, "index": 0, "label": "red eyes"}, {"seed": 1, "index": 5, "label": "blue eyes"}
FILM = {"from": FACES[0], "to": FACES[1], "steps": 60}
NEIGHBOURS = {"of": FACES[0], "n": 60, "strength": 0.5}
REQUESTS: dict[str, tuple[str, dict[str, object]]] = {
    "json": ("/generate", {"n": 200}),
    "one": ("/generate", {"n": 1}),
    "sheet": ("/generate?format=webp", {"n": 100}),
    "variations": ("/variations", NEIGHBOURS),
    "film": ("/interpolate?format=gif", FILM),
    "strip": ("/interpolate?format=png", FILM),
    "search": ("/generate", EYES | {"n": 100}),
    "set with a search": ("/generate?format=zip", EYES | {"n": 100_000}),
    "npy": ("/generate?format=npy", {"n": 100_000}),
    "zip": ("/generate?format=zip", {"n": 100_000}),
    "webdataset": ("/generate?format=webdataset", {"n": 100_000}),
    "parquet": ("/generate?format=parquet", {"n": 100_000}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    about = manifest(attribute("eyes", "red", "blue"), name="eyes")
    about = about.model_copy(update={"height": 64, "width": 64})
    path = onnx_files.put(folder, "eyes", 1, onnx_files.model(about))
    path.with_name("verifier.onnx").write_bytes(onnx_files.bright_verifier(about))
    bounds = ("--max-wait", "60", "--max-queue", "100000", "--timeout", "60")
    with serve("--models", str(folder), *bounds) as running:
        warm(running)
        yield running


def request(name: str) -> bytes:
    path, body = REQUESTS[name]
    content = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nHost: figment\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)  # answers are soon stuck
    connection.settimeout(60)
    connection.connect((parts.hostname, parts.port))
    return connection


def leave(connection: socket.socket, *, reset: bool) -> None:
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    connection.close()


def troubles(server: Server) -> list[str]:
    return [line for line in server.log if line.startswith(("ERROR", "CRITICAL", "Traceback"))]


@pytest.mark.parametrize("reset", [True, False], ids=["RST", "FIN"])
@pytest.mark.parametrize("part", [0, 1, 30, -10], ids=["connected", "byte", "head", "body"])
def test_disconnect_within_the_request(server: Server, part: int, reset: bool) -> None:
    with unharmed(server):
        for _ in range(10):
            connection = connect(server)
            connection.sendall(request("json")[:part])
            time.sleep(0.005)
            leave(connection, reset=reset)
    assert troubles(server) == [], "".join(server.log)


@pytest.mark.slow
@pytest.mark.parametrize("reset", [True, False], ids=["RST", "FIN"])
def test_disconnect_at_any_moment(server: Server, reset: bool) -> None:
    """While it waits, is computed, encoded, searched for, put together or sent."""

    def ask(number: int) -> None:
        chance = random.Random(number)
        with contextlib.suppress(ConnectionError):
            connection = connect(server)
            connection.sendall(request(chance.choice(list(REQUESTS))) * chance.choice([1, 1, 1, 3]))
            for _ in range(chance.choice([0, 0, 1, 10])):
                connection.recv(1 << 12)
            time.sleep(0.5 * chance.random() ** 3)
            leave(connection, reset=reset)

    with unharmed(server):
        before = Figures(server)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(120)))
        wait_until(lambda: Figures(server)("connections") <= 1)
        after = Figures(server)
        for name in ("batches_failed_total", "threads_hung_total"):
            assert after(name) == before(name)
        for status in ("0", "500", "504"):
            assert after("http_requests_total", status=status) == 0
    assert troubles(server) == [], "".join(server.log)


@pytest.mark.parametrize("name", ["npy", "zip", "webdataset", "parquet", "set with a search"])
def test_disconnect_within_a_set(server: Server, name: str) -> None:
    with unharmed(server):
        before = Figures(server)
        for number in range(4):
            connection = connect(server)
            connection.sendall(request(name) * (1 + number // 2))  # another waits behind it
            assert connection.recv(1 << 12).startswith(b"HTTP/1.1 200 OK")
            leave(connection, reset=number % 2 == 0)
        wait_until(lambda: Figures(server)("streams") == 0)
        after = Figures(server)
        assert after("streams_cut_total", reason="caller-gone") == (
            before("streams_cut_total", reason="caller-gone") + 4
        )
        assert after("streams_cut_total") == before("streams_cut_total") + 4
    assert troubles(server) == [], "".join(server.log)
