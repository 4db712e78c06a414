"""Forms in which clients send valid requests, and forms that are rejected with a reason."""

from __future__ import annotations

import codecs
import gzip
import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.helpers.responses import problem
from tests.helpers.server import Server

pytestmark = pytest.mark.server

JSON = {"Content-Type": "application/json"}


def post(client: httpx.Client, content: bytes, **headers: str) -> httpx.Response:
    return client.post("/generate", content=content, headers=JSON | headers)


def first_line(server: Server, request: bytes) -> bytes:
    """Status line of the answer to raw bytes."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/generate", "/generate/conditional"])
def test_no_body_is_an_empty_object(client: httpx.Client, path: str) -> None:
    assert len(client.post(path).json()["images"]) == 1


def test_no_body_lacks_the_required_fields(client: httpx.Client) -> None:
    assert "from" in problem(client.post("/interpolate"), 422)["detail"]


@pytest.mark.parametrize("content", [b"[1]", b'"red eyes"', b"3", b"null"])
def test_body_that_is_no_object_is_rejected(client: httpx.Client, content: bytes) -> None:
    assert problem(post(client, content), 422)["detail"] == "body: should be a JSON object"


def test_byte_order_mark_is_ignored(client: httpx.Client) -> None:
    answer = post(client, codecs.BOM_UTF8 + b'{"n": 2, "seed": 3}')
    assert answer.content == post(client, b'{"n": 2, "seed": 3}').content


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encoding_is_named(client: httpx.Client, encoding: str) -> None:
    told = problem(post(client, '{"n": 1}'.encode(encoding)), 400)
    assert told["detail"].startswith(f"the body is in {encoding.upper()}: send JSON in UTF-8")


def test_invalid_utf8_is_located(client: httpx.Client) -> None:
    told = problem(post(client, '{"label": "ro\xf6d eyes"}'.encode("latin-1")), 400)
    assert "byte 13 is 0xf6" in told["detail"]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b'{"n": 1, "n": 2}', "n"),
        (b'{"label": {"eyes": "red", "eyes": "blue"}}', "eyes"),
    ],
)
def test_repeated_name_is_rejected(client: httpx.Client, content: bytes, name: str) -> None:
    assert problem(post(client, content), 422)["detail"].startswith(f"{name}: appears twice")


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "gzip, gzip"])
def test_compressed_body_is_rejected(client: httpx.Client, encoding: str) -> None:
    answer = post(client, gzip.compress(b'{"n": 1}'), **{"Content-Encoding": encoding})
    assert problem(answer, 415)["type"] == "urn:figment:body-encoded"
    assert answer.headers["Accept-Encoding"] == "identity"


def test_identity_is_no_compression(client: httpx.Client) -> None:
    assert post(client, b'{"n": 1}', **{"Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize("seed", [-1, 2**53, 1.5, "3"])
def test_invalid_seed_says_how_to_get_a_random_one(client: httpx.Client, seed: object) -> None:
    answer = post(client, json.dumps({"seed": seed}).encode())
    assert problem(answer, 422)["detail"] == (
        "seed: should be a whole number from 0 to 9007199254740991; leave it out to have one drawn"
    )


@pytest.mark.parametrize(
    ("accepted", "media"),
    [
        (("text/html", "application/json"), "application/json"),
        (("application/json;q=0.1", "image/png"), "image/png"),
    ],
)
def test_lines_of_accept_are_one_list(
    client: httpx.Client, accepted: tuple[str, ...], media: str
) -> None:
    lines = [("Content-Type", "application/json"), *(("Accept", each) for each in accepted)]
    answer = client.post("/generate", content=b"{}", headers=lines)
    assert answer.headers["content-type"] == media


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ((), 400),
        (("elsewhere.example", "localhost"), 400),
        (("localhost", "elsewhere.example"), 400),
        (("127.0.0.1:8000", "localhost"), 200),
        (("localhost",), 200),
    ],
)
def test_one_host_is_required(server: Server, hosts: tuple[str, ...], status: int) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    line = first_line(server, f"GET /models HTTP/1.1\r\n{lines}\r\n".encode())
    assert line.startswith(f"HTTP/1.1 {status} ".encode())


def test_http_1_0_needs_no_host(server: Server) -> None:
    assert b" 200 " in first_line(server, b"GET /models HTTP/1.0\r\n\r\n")
