"""A busy server: rejected, late and abandoned requests, and images that stay the same."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import manifest
from tests.helpers.onnx_files import model, put
from tests.helpers.responses import pixels
from tests.helpers.server import ROOT, Server, serve
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

GOLDEN = ROOT / "tests" / "golden"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def small(face_models: Path) -> Iterator[Server]:
    """A server whose queue is soon full."""
    with serve(
        "--models", str(face_models), "--max-queue", "256", "--max-images", "256"
    ) as running:
        yield running


def admitted(server: Server) -> int:
    found: int = server.client.get("/info").json()["admitted_images"]
    return found


def images_per_second(server: Server) -> float:
    found: float = server.client.get("/info").json()["images_per_second"]
    return found


def send(server: Server, body: dict[str, object], path: str = "/generate") -> socket.socket:
    """A connection on which a request has been sent, and nothing read."""
    parts = urlsplit(server.url)
    connection = socket.create_connection((parts.hostname, parts.port))
    content = json.dumps(body)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n{content}".encode()
    )
    return connection


def is_ready(server: Server) -> bool:
    """False while workers load their models, which may be after the parent logs its address."""
    try:
        return server.client.get("/readyz").is_success
    except httpx.ConnectError:
        return False


def test_full_queue_answers_429_with_retry_after(small: Server) -> None:
    small.client.post("/generate", json={"n": 32}).raise_for_status()  # so that a rate is known
    with send(small, {"n": 250}) as first:
        wait_until(lambda: admitted(small) > 0, every=0.001)
        for n in (100, 200):  # one rule, however many
            answer = small.client.post("/generate", json={"n": n})
            if answer.status_code == 200:  # the first was done already
                continue
            assert answer.status_code == 429
            assert answer.headers["content-type"] == "application/problem+json"
            assert f"{n} requested" in answer.json()["detail"]
            assert 1 <= int(answer.headers["retry-after"]) <= 5
            assert answer.json()["retry_after"] == int(answer.headers["retry-after"])
        assert b"200 OK" in first.recv(100)
    small.client.post("/generate", json={"n": 256}).raise_for_status()


def test_late_request_is_answered_504(face_models: Path) -> None:
    with serve("--models", str(face_models), "--timeout", "0.01") as server:
        answer = server.client.post("/generate", json={"n": 1024})
        assert answer.status_code == 504
        assert answer.json()["detail"] == "not done within 0.01 s"
        wait_until(lambda: not admitted(server), 1)  # the rest of it would take longer


def test_requests_of_disconnected_clients_are_not_computed(server: Server) -> None:
    for _ in range(3):
        send(server, {"n": 1024}).close()
    send(server, {"n": 1_000_000}, "/generate?format=npy").close()
    began = time.monotonic()
    while admitted(server) or time.monotonic() < began + 0.05:
        assert time.monotonic() < began + 2  # all of it would take a minute
        time.sleep(0.01)
    server.client.post("/generate", json={}).raise_for_status()


def test_small_requests_overtake_a_stream(server: Server) -> None:
    with server.client.stream(
        "POST", "/generate", params={"format": "npy"}, json={"n": 1_000_000}
    ) as stream:
        chunks = stream.iter_raw()
        next(chunks)
        reader = threading.Thread(target=lambda: [next(chunks) for _ in range(50)])
        reader.start()
        took = []
        for _ in range(5):
            began = time.monotonic()
            with httpx.Client(base_url=server.url) as client:
                client.post("/generate", json={}).raise_for_status()
            took.append(time.monotonic() - began)
        reader.join()
    assert min(took) < 1


def test_unread_streams_do_not_block_requests(small: Server) -> None:
    """40 streams that are not read, of which each could fill the queue."""
    idle = [send(small, {"n": 10_000_000}, "/generate?format=npy") for _ in range(40)]
    wait_until(
        lambda: small.client.post("/generate", json={"n": 64}).status_code == 200, 30, every=0.05
    )
    for connection in idle:
        connection.close()


def test_stream_of_a_client_that_stops_reading_is_aborted(face_models: Path) -> None:
    with (
        serve("--models", str(face_models), "--timeout", "1") as server,
        send(server, {"n": 10_000_000}, "/generate?format=npy") as connection,
    ):
        wait_until(lambda: any("read nothing" in line for line in server.log), 30)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(1 << 20):
                received += len(data)
        assert received < 10_000_000 * 12_288


def test_unread_stream_stops_computing(server: Server) -> None:
    with server.client.stream(
        "POST", "/generate", params={"format": "npy"}, json={"n": 1_000_000}
    ) as stream:
        chunks = stream.iter_raw()
        next(chunks)
        # Until what lies on the way is full; the rate is measured anew with each batch.
        before, deadline = 0.0, time.monotonic() + 20
        while (now := images_per_second(server)) != before:
            assert time.monotonic() < deadline
            before = now
            time.sleep(0.5)
        assert admitted(server) == 0
        # Others are answered meanwhile.
        httpx.post(f"{server.url}/generate", json={"n": 8}).raise_for_status()


@pytest.mark.parametrize("n", [1, 16, 100])
def test_npy_has_the_pixels_of_the_json_answer(server: Server, tmp_path: Path, n: int) -> None:
    body = {"n": n, "seed": 5, "label": "red eyes"}
    answer = server.client.post("/generate?format=npy", json=body)
    assert answer.headers["content-type"] == "application/x-npy"
    assert answer.headers["figment-seed"] == "5"
    (tmp_path / "x.npy").write_bytes(answer.content)
    array = np.load(tmp_path / "x.npy")
    assert (array.shape, array.dtype) == ((n, 64, 64, 3), np.uint8)
    found = server.client.post("/generate", json=body).json()["images"]
    expected = [pixels(base64.b64decode(image["data"])) for image in found]
    assert np.array_equal(array, np.stack(expected))


def test_npy_streams_are_bounded(server: Server) -> None:
    answer = server.client.post("/generate?format=npy", json={"n": 10_000_001})
    assert answer.status_code == 422
    assert answer.json()["max_images"] == 10_000_000


def test_max_images_and_max_set_bound_answers(face_models: Path) -> None:
    with serve("--models", str(face_models), "--max-images", "4", "--max-set", "9") as server:
        for path, most in (("/generate", 4), ("/generate?format=zip", 9)):
            assert server.client.post(path, json={"n": most}).status_code == 200
            answer = server.client.post(path, json={"n": most + 1})
            assert (answer.status_code, answer.json()["max_images"]) == (422, most)
        body = {"from": {"seed": 1}, "to": {"seed": 2}}
        for steps, status in ((4, 200), (5, 422)):
            answer = server.client.post("/interpolate?format=gif", json=body | {"steps": steps})
            assert answer.status_code == status
        assert answer.json()["max_images"] == 4


def test_stream_of_a_killed_server_is_seen_as_incomplete(face_models: Path) -> None:
    with (
        serve("--models", str(face_models)) as server,
        server.client.stream(
            "POST", "/generate", params={"format": "npy"}, json={"n": 1_000_000}
        ) as stream,
    ):
        chunks = stream.iter_raw()
        next(chunks)
        server.process.kill()
        with pytest.raises(httpx.TransportError):
            list(chunks)


@pytest.mark.parametrize("path", ["/generate", "/generate?format=png", "/generate?format=webp"])
@pytest.mark.parametrize("n", [1, 5])
def test_server_timing_header(server: Server, path: str, n: int) -> None:
    began = time.monotonic()
    answer = server.client.post(path, json={"n": n})
    took = 1000 * (time.monotonic() - began)
    found = re.fullmatch(
        r"queue;dur=([\d.]+), inference;dur=([\d.]+), encode;dur=([\d.]+)",
        answer.headers["server-timing"],
    )
    assert found
    queue, inference, encode = map(float, found.groups())
    assert inference > 0 and encode > 0
    assert queue + encode < took


def test_info_shows_the_settings_in_effect(server: Server) -> None:
    info = server.client.get("/info").json()
    assert info["provider"] in ("CPUExecutionProvider", "CUDAExecutionProvider")
    assert info["threads"] >= 1
    assert info["batches"].keys() >= {"anime-faces/2", "digits/1"}
    assert info["settings"]["max_queue"] == 4096
    assert info["images_per_second"] > 0
    (line,) = [line for line in server.log if "device" in line]
    for part in (info["provider"], f"threads {info['threads']}", "queue 4096 images"):
        assert part in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_single_request_never_waits_for_a_tcp_acknowledgement(tmp_path: Path, workers: str) -> None:
    """Without TCP_NODELAY each would take 40 ms."""
    put(tmp_path, "tiny", 1, model(manifest()))
    with serve("--models", str(tmp_path), "--workers", workers) as server:
        wait_until(lambda: is_ready(server))
        took = []
        for _ in range(20):
            began = time.monotonic()
            server.client.post("/generate", json={}).raise_for_status()
            took.append(time.monotonic() - began)
        assert sorted(took)[10] < 0.035


def test_head_and_body_arrive_in_one_read(server: Server) -> None:
    with send(server, {}) as connection:
        first = connection.recv(1 << 16)
    head, _, body = first.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length and len(body) == int(length[1])


def test_golden_images(server: Server) -> None:
    """The images of an address are those of any other day.

    Processors with other vector instructions may round a byte in a thousand to its neighbour.
    """
    for path in sorted(GOLDEN.glob("*.png")):
        model, version = path.stem.rsplit("-", 1)
        body = {"model": model, "version": int(version), "n": 16, "seed": 3}
        found = pixels(server.client.post("/generate?format=png", json=body).content)
        with Image.open(path) as image:
            expected = np.asarray(image)
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


def test_images_are_the_same_under_load(server: Server, face_models: Path) -> None:
    """64 callers at once, of all sizes and formats, some of whom hang up; then another server."""
    count = 48
    body = {"model": "anime-faces", "seed": 11, "n": count}
    expected = [
        hashlib.sha256(base64.b64decode(image["data"])).hexdigest()
        for image in server.client.post("/generate", json=body).json()["images"]
    ]
    wrong: list[str] = []

    def check(offset: int, files: list[bytes]) -> None:
        for index, content in enumerate(files, offset):
            if hashlib.sha256(content).hexdigest() != expected[index]:
                wrong.append(f"{index} of {offset}+{len(files)}")

    def ask(url: str, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=url, timeout=60) as client:
            for _ in range(4):
                offset = chance.randrange(count)
                n = chance.choice([1, 1, 2, chance.randint(1, count - offset)])
                part = body | {"offset": offset, "n": min(n, count - offset)}
                way = chance.choice(["json", "address", "noise", "hang up"])
                if way == "json":
                    images = client.post("/generate", json=part).json()["images"]
                    check(offset, [base64.b64decode(image["data"]) for image in images])
                elif way == "address":
                    found = client.get(f"/images/anime-faces/2/11/{offset}.png")
                    check(offset, [found.content])
                elif way == "noise":
                    client.post("/generate?format=jpeg", json={"n": n}).raise_for_status()
                else:
                    send(server, part).close()

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda number: ask(server.url, number), range(64)))
    assert not wrong
    with serve("--models", str(face_models), "--threads", "1") as other:
        ask(other.url, 1)
        for offset in (0, 7, 40):
            part = body | {"offset": offset, "n": 1}
            (image,) = other.client.post("/generate", json=part).json()["images"]
            check(offset, [base64.b64decode(image["data"])])
    assert not wrong
