"""Python client against a real server, over connections that are cut."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from service.client import Figment, http
from service.client.http import HttpClient as At
from service.client.stream import ImageStream
from service.core.image_request import ImageRequest
from service.datasets.progress import Progress
from service.errors import ClientError, ModelChanged, RequestRejected, Unreachable
from tests.helpers.cut_connections import cutting
from tests.helpers.server import Server

CUTS = 20


@pytest.fixture(scope="module")
def figment(server: Server) -> Figment:
    return Figment(server.url)


def test_images_and_labels(figment: Figment, client: httpx.Client) -> None:
    images, labels = figment.generate(5, label=["red eyes", "blue eyes"], seed=3)
    assert (images.shape, images.dtype) == ((5, 64, 64, 3), np.uint8)
    assert [each["eyes"] for each in labels] == ["red", "blue", "red", "blue", "red"]
    body = {"label": ["red eyes", "blue eyes"], "n": 5, "seed": 3}
    array = client.post("/generate?format=npy", json=body).content
    assert array.endswith(images.tobytes())


def test_urls_are_addresses(figment: Figment, client: httpx.Client) -> None:
    batch = figment.generate(2, model="digits", label="7", seed=1, offset=5, truncation=0.5)
    assert batch.images.shape == (2, 28, 28, 1)
    assert batch.urls[1] == "/images/digits/2/1/6.png?label=7&truncation=0.5"
    assert client.get(batch.urls[1]).status_code == 200


def test_without_a_seed_every_batch_is_another(figment: Figment) -> None:
    first, second = figment.generate(2), figment.generate(2)
    assert not np.array_equal(first.images, second.images)
    assert first.labels == [None, None]


def test_counts_and_verified_labels(figment: Figment) -> None:
    _, labels = figment.generate([3, 1], label=["red eyes", "blue eyes"], seed=1, verify=0.9)
    assert sorted(each["eyes"] for each in labels) == ["blue", "red", "red", "red"]


def test_interpolations_and_variations(figment: Figment) -> None:
    start, end = {"seed": 1, "label": "red eyes"}, {"seed": 2, "label": "blue eyes"}
    way = figment.interpolate(start, end, steps=5)
    assert way.images.shape == (5, 64, 64, 3)
    (first,), _ = figment.generate(1, seed=1, label="red eyes")
    assert np.array_equal(way.images[0], first)
    assert way.urls[1:4] == [None] * 3
    assert (way.labels[2] or {})["eyes"] == {"red": 0.5, "blue": 0.5}
    around, again = (figment.variations(start, 3, seed=4, strength=0.1) for _ in range(2))
    assert around.images.shape == (3, 64, 64, 3)
    assert np.array_equal(around.images, again.images)


def test_labels_that_can_be_asked_for(figment: Figment) -> None:
    assert "red eyes" in figment.labels("anime-faces")["eyes"]
    assert figment.labels("digits", 1)["digit"][:2] == ["0", "1"]


def test_what_is_refused_is_told(figment: Figment) -> None:
    with pytest.raises(RequestRejected, match="did you mean 'red eyes'") as error:
        figment.generate(label="red eys")
    assert error.value.problem["matches"][0] == "red eyes"
    with pytest.raises(RequestRejected, match="steps"):
        figment.interpolate({"seed": 1}, {"seed": 2}, steps=1)


def test_a_stream_cut_at_random_points_is_the_stream_that_was_not_cut(server: Server) -> None:
    body: dict[str, Any] = {"label": ["red eyes", "blue eyes"], "seed": 3}
    expected = list(Figment(server.url).stream(160, **body))
    points = random.Random(0)
    # The first one comes through before it is cut, for a server that never sends any is given up.
    with cutting(server.url, [points.randrange(15_000, 130_000) for _ in range(CUTS)]) as proxy:
        found = list(Figment(proxy.url).stream(160, **body))
        assert proxy.cuts == CUTS
    assert [sample.index for sample in found] == list(range(160))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.image, other.image)
        assert (one.labels, one.url) == (other.labels, other.url)


def test_heads_may_be_cut_as_well(server: Server) -> None:
    """Python's HTTP parser takes the end of the connection for the end of the head."""
    expected = Figment(server.url).generate(2, label="red eyes", seed=3)
    for point in range(0, 700, 13):
        with cutting(server.url, [point]) as proxy:
            request = ImageRequest(n=2, label="red eyes", seed=3)
            stream = ImageStream(At(proxy.url), request, Progress(request))
            assert [record.url for record, _ in stream] == expected.urls
            assert proxy.cuts == 1
            assert len(stream.software) == 1
    for point in range(0, 200, 13):
        with cutting(server.url, [point]) as proxy:
            images = Figment(proxy.url).variations({"seed": 1}, 1, seed=2).images
            assert (images.shape, proxy.cuts) == ((1, 64, 64, 3), 1)
        with cutting(server.url, [point]) as proxy:
            with pytest.raises(RequestRejected, match="did you mean"):
                Figment(proxy.url).generate(label="red eys")
            assert proxy.cuts == 1


def test_it_can_be_handed_to_other_processes(figment: Figment) -> None:
    copy = pickle.loads(pickle.dumps(figment))
    assert copy.generate(1, seed=1).urls == figment.generate(1, seed=1).urls


def test_a_verified_stream_too(server: Server) -> None:
    body: dict[str, Any] = {"label": ["red eyes", "blue eyes"], "seed": 3, "verify": 0.95}
    expected = [sample.url for sample in Figment(server.url).stream(100, **body)]
    points = random.Random(1)
    with cutting(server.url, [points.randrange(15_000, 100_000) for _ in range(12)]) as proxy:
        found = [sample.url for sample in Figment(proxy.url).stream(100, **body)]
        assert proxy.cuts == 12
    assert found == expected


def test_a_stream_is_read_no_faster_than_it_is_used(figment: Figment, client: httpx.Client) -> None:
    stream = figment.stream(100_000, seed=1)
    for _ in range(3):
        next(stream)
    assert client.get("/info").json()["admitted_images"] <= 1000
    stream.close()


class Answer(BaseHTTPRequestHandler):
    """Server that gives the answers that a test prepares."""

    answers: Iterator[tuple[int, dict[str, str], bytes]]
    asked: list[float]

    def do_POST(self) -> None:
        self.asked.append(time.monotonic())
        self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, body = next(self.answers)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[float]]]:
    asked: list[float] = []
    handler = type("Handler", (Answer,), {"answers": iter(answers), "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def set_of(client: httpx.Client, body: dict[str, Any], **changed: str) -> Any:
    """An answer of the real server, with some of its headers changed."""
    answer = client.post("/generate?format=webdataset", json=body)
    headers = {name: v for name, v in answer.headers.items() if name.startswith("figment-")}
    return 200, headers | changed, answer.content


BUSY = 429, {"Retry-After": "1"}, json.dumps({"status": 429, "detail": "no room"}).encode()


def test_a_busy_server_is_asked_again_when_it_says(client: httpx.Client) -> None:
    with answering(BUSY, BUSY, set_of(client, {"n": 2, "seed": 1})) as (url, asked):
        assert len(Figment(url).generate(2, seed=1).images) == 2
    waits = np.diff(asked)
    assert len(waits) == 2 and waits.min() >= 1


def test_patience_comes_to_an_end() -> None:
    with answering(BUSY, BUSY, BUSY) as (url, asked):
        with pytest.raises(Unreachable, match=r"no room; no image for 1\.5 s, giving up"):
            Figment(url, patience=1.5).generate(2)
        assert len(asked) == 2
    later = 429, {"Retry-After": "3600"}, BUSY[2]
    with answering(later) as (url, _), pytest.raises(Unreachable, match="Retry-After is 3600 s"):
        Figment(url).generate(2)
    with pytest.raises(Unreachable, match="cannot be reached"):
        Figment("http://127.0.0.1:9", patience=0.2).generate(2)


def test_a_server_that_never_answered_is_given_up_at_once(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "FIRST_ANSWER_SECONDS", 0)
    with pytest.raises(Unreachable, match="is the service running"):
        Figment("http://127.0.0.1:9").generate(2)
    with answering(BUSY, set_of(client, {"n": 2, "seed": 1})) as (url, _):
        assert len(Figment(url).generate(2, seed=1).images) == 2


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIGMENT_SERVER", raising=False)
    monkeypatch.delenv("FIGMENT_PORT", raising=False)
    assert At().url == "http://localhost:8000"
    monkeypatch.setenv("FIGMENT_PORT", "8123")
    assert At().url == "http://localhost:8123"
    monkeypatch.setenv("FIGMENT_SERVER", "https://figment.example/")
    assert At().url == "https://figment.example"


def test_another_model_in_the_middle_is_told(client: httpx.Client) -> None:
    body = {"n": 2, "seed": 1}
    status, headers, content = set_of(client, body)
    first = status, headers, content[: len(content) // 2]
    for change, said in (
        ({"figment-model-sha256": "0" * 64}, "has changed: model_sha256 is 0{64}, and was"),
        ({"figment-verifier-sha256": "0" * 64}, "verifier_sha256 is 0{64}, and was None"),
        ({"figment-version": "3"}, "has changed: version is 3, and was 2"),
    ):
        with answering(first, set_of(client, body | {"offset": 1, "n": 1}, **change)) as (url, _):
            stream = Figment(url).stream(2, seed=1)
            assert next(stream).index == 0
            with pytest.raises(ModelChanged, match=said):
                next(stream)


def test_a_server_that_sends_something_else_is_told(client: httpx.Client) -> None:
    status, headers, content = set_of(client, {"n": 2, "seed": 1})
    strange: list[tuple[int, dict[str, str], bytes]] = [
        (200, {}, b"hello " * 1000),
        (status, headers, b"hello " * 1000),
        (status, headers, content.replace(b'"index": 1', b'"index": 7')),
        (status, headers, content.replace(b'"seed": 1', b'"seed": 2')),
        (status, headers, content.replace(b'"index": 0', b'"index":""')),
        (status, headers | {"figment-model": "../../etc"}, content),
        (status, headers, content.replace(b"IHDR", b"IHDX", 1)),
        (status, headers, content.replace(b"IEND", b"IENX")),
    ]
    for answer in strange:
        with answering(answer) as (url, _), pytest.raises(ClientError, match="the server sent"):
            Figment(url, patience=0.2).generate(2, seed=1)


def test_orders_that_are_none() -> None:
    figment = Figment("http://127.0.0.1:9", patience=0)
    with pytest.raises(ClientError, match="n: Input should be greater than or equal to 1"):
        figment.generate(0)
    with pytest.raises(ClientError, match="label: should be a phrase"):
        figment.generate(1, label=[])
    with pytest.raises(ClientError, match="at most 10,000,000 images"):
        next(figment.stream([6_000_000, 6_000_000], label=["7", "8"]))


def test_a_label_that_is_not_seen_is_told_however_often_the_stream_was_cut(server: Server) -> None:
    """As in one stream: what was found before is kept, and no more."""
    asked: dict[str, Any] = {
        "label": ["orange eyes, gray hair", "red eyes"],
        "seed": 5,
        "verify": 0.999,
    }

    def found(url: str) -> list[int]:
        indices = []
        with pytest.raises(RequestRejected, match="never saw 'orange eyes, gray hair'"):
            for sample in Figment(url).stream([3, 300], **asked):
                indices.append(sample.index)
        return indices

    expected = found(server.url)
    assert expected
    points = random.Random(2)
    with cutting(server.url, [points.randrange(15_000, 60_000) for _ in range(20)]) as proxy:
        assert found(proxy.url) == expected
        assert proxy.cuts > 3


def test_an_address_that_is_none() -> None:
    with pytest.raises(ClientError, match="localhost:8000 is not a server address"):
        Figment("localhost:8000").generate(2)


def test_the_client_needs_neither_runtime_nor_server() -> None:
    code = (
        "import sys, service.client, service.client.fetch; "
        "assert not {'onnxruntime', 'fastapi', 'torch', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
