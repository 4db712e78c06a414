"""The shipped cache in front of a real server: what it keeps, and what it must not keep.

Varnish runs with the files of ``ops/cache``, in which only addresses and folders are replaced.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.core import api_keys
from tests.helpers.ports import free_port
from tests.helpers.server import ROOT, Server, serve
from tests.helpers.waiting import wait_until

CONFIG = ROOT / "ops" / "cache"

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        shutil.which("varnishd") is None, reason="no Varnish: apt-get install varnish"
    ),
]


@contextmanager
def cache(service_port: int, folder: Path) -> Iterator[httpx.Client]:
    """Start the cache in front of a service; yield a client of it."""
    port = free_port()
    replaced = {
        "-a :8000": f"-a 127.0.0.1:{port}",
        "/tmp/varnish": f"{folder}/work",
        "/etc/figment/": f"{folder}/",
        "/var/cache/figment/objects,10G": f"{folder}/objects,1G",
        '"cpu"': '"127.0.0.1"',
        '"8000"': f'"{service_port}"',
    }
    for name in ("run", "default.vcl"):
        text = (CONFIG / name).read_text()
        for written in [each for each in replaced if each in text]:
            text = text.replace(written, replaced.pop(written))
        (folder / name).write_text(text)
    assert not replaced
    with (
        subprocess.Popen(["sh", str(folder / "run")]) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            wait_until(lambda: process.poll() is not None or listens(client))
            assert process.poll() is None
            yield client
        finally:
            process.terminate()


def listens(client: httpx.Client) -> bool:
    try:
        client.get("/images/")  # 503 while there is no service
    except httpx.TransportError:
        return False
    return True


@pytest.fixture(scope="module")
def server(plain_models: Path) -> Iterator[Server]:
    with serve("--models", str(plain_models), "--max-wait", "30") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with cache(httpx.URL(server.url).port or 0, tmp_path_factory.mktemp("cache")) as client:
        yield client


def computed(server: Server) -> float:
    """Images computed so far."""
    metrics = server.client.get("/metrics").text
    return sum(map(float, re.findall(r"^figment_batch_images_sum\S* (\S+)$", metrics, re.M)))


@pytest.mark.parametrize("extension", ["tar", "zip", "parquet", "npy"])
def test_set_is_computed_once(client: httpx.Client, server: Server, extension: str) -> None:
    url = f"/sets/plain/1/3/0-299.{extension}"
    first = client.get(url)
    before = computed(server)
    second = client.get(url)
    assert (first.status_code, first.headers["x-cache"]) == (200, "MISS")
    assert (second.status_code, second.headers["x-cache"]) == (200, "HIT")
    assert computed(server) == before
    asked = server.client.get(url)
    assert first.content == second.content == asked.content
    for name in ("etag", "cache-control", "content-type", "figment-seed"):
        assert second.headers[name] == asked.headers[name]


def test_image_is_computed_once(client: httpx.Client, server: Server) -> None:
    url = "/images/plain/1/3/7.png"
    first = client.get(url)
    before = computed(server)
    assert client.get(url).content == first.content
    assert computed(server) == before


def test_range_is_served_from_what_is_kept(client: httpx.Client, server: Server) -> None:
    url = "/sets/plain/1/4/0-299.tar"
    whole = client.get(url).content
    before = computed(server)
    part = client.get(url, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, whole[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole)}"
    assert computed(server) == before


def test_known_set_is_answered_304(client: httpx.Client, server: Server) -> None:
    url = "/sets/plain/1/5/0-99.tar"
    etag = client.get(url).headers["etag"]
    before = computed(server)
    answer = client.get(url, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")
    assert computed(server) == before


def test_head_computes_nothing(client: httpx.Client, server: Server) -> None:
    url = "/sets/plain/1/6/0-99.tar"
    before = computed(server)
    head = client.head(url)
    assert (head.status_code, computed(server)) == (200, before)
    # The empty answer is not kept as the answer of a GET.
    assert client.get(url).headers["etag"] == head.headers["etag"]
    assert len(client.get(url).content) > 100_000


def test_identical_requests_are_computed_once(client: httpx.Client, server: Server) -> None:
    before = computed(server)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/sets/plain/1/7/0-999.tar"), range(8)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert computed(server) == before + 1000


def test_error_is_not_kept(client: httpx.Client) -> None:
    for url in ("/sets/other/1/3/0-9.tar", "/sets/plain/1/3/9-0.tar", "/images/plain/1/3/x.png"):
        for _ in range(2):
            answer = client.get(url)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-cache"] == "MISS"


def test_generated_set_passes_through_while_it_is_computed(
    client: httpx.Client, server: Server
) -> None:
    body = {"n": 1_000_000, "seed": 3}
    with client.stream("POST", "/generate?format=npy", json=body) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_bytes())
    wait_until(lambda: "\nfigment_streams 0.0" in server.client.get("/metrics").text)


def test_cut_set_is_not_kept(plain_models: Path, tmp_path: Path) -> None:
    port = free_port()
    options = ("--models", str(plain_models), "--port", str(port))
    url = "/sets/plain/1/3/0-9999.tar"
    with cache(port, tmp_path) as client:
        with serve(*options) as server, client.stream("GET", url) as answer:
            parts = answer.iter_bytes()
            assert next(parts)
            server.process.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in parts:
                    pass
        with serve(*options) as server:
            again = client.get(url)
            assert again.headers["x-cache"] == "MISS"
            assert again.content == server.client.get(url).content


def test_images_behind_api_keys_are_not_kept(plain_models: Path, tmp_path: Path) -> None:
    secret, entry = api_keys.make("lab", None)
    keys = tmp_path / "keys"
    keys.write_text(f"{entry}\n")
    url = "/sets/plain/1/3/0-9.tar"
    with (
        serve("--models", str(plain_models), "--api-keys-file", str(keys)) as server,
        cache(httpx.URL(server.url).port or 0, tmp_path) as client,
    ):
        for _ in range(2):
            answer = client.get(url, headers={"Authorization": f"Bearer {secret}"})
            assert (answer.status_code, answer.headers["x-cache"]) == (200, "MISS")
            assert client.get(url).status_code == 401
