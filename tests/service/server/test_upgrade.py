"""Requests that offer an upgrade to another protocol are answered as if they did not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.helpers.ports import free_port
from tests.helpers.server import Server, serve
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n"
WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
SEVERAL = b"Connection: upgrade\r\nUpgrade: TLS/1.2\r\nUpgrade: foo, bar\r\n"
UPGRADES = pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET, SEVERAL, b"Upgrade: h2c\r\n"])
LAST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(plain_models: Path) -> Iterator[Server]:
    with serve("--models", str(plain_models)) as running:
        yield running


def post(seed: int, upgrade: bytes, *, chunked: bool = False) -> tuple[bytes, bytes]:
    """Head and body of a request for one image."""
    body = b'{"n": 1, "seed": %d}' % seed
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n%b\r\n%b\r\n"
    return head % (length, upgrade), body


def exchange(server: Server, *packets: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each response; every packet is sent on its own."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for packet in packets:
            connection.sendall(packet)
            time.sleep(0.02)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    responses = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        responses.append((int(head.split()[1]), rest[:length]))
        received = rest[length:]
    return responses


def seeds(responses: list[tuple[int, bytes]]) -> list[int]:
    """Seeds of the images in all responses but the last, which belongs to ``LAST``."""
    *images, last = responses
    assert last == (200, b'{"status":"alive"}')
    assert [status for status, _ in images] == [200] * len(images)
    return [json.loads(body)["seed"] for _, body in images]


@UPGRADES
@pytest.mark.parametrize("chunked", [False, True])
def test_body_of_a_request_with_upgrade_is_kept(
    server: Server, upgrade: bytes, chunked: bool
) -> None:
    head, body = post(3, upgrade, chunked=chunked)
    assert seeds(exchange(server, head + body + LAST)) == [3]
    assert seeds(exchange(server, head, body, LAST)) == [3]
    request = head + body
    packets = [request[at : at + 40] for at in range(0, len(request), 40)]
    assert seeds(exchange(server, *packets, LAST)) == [3]


@UPGRADES
def test_pipelined_requests_with_upgrade_are_answered_in_order(
    server: Server, upgrade: bytes
) -> None:
    requests = [b"".join(post(seed, upgrade if seed % 3 else b"")) for seed in range(1, 10)]
    assert seeds(exchange(server, b"".join(requests) + LAST)) == list(range(1, 10))


def test_body_with_upgrade_is_not_a_request(server: Server) -> None:
    """A body that reads like a request, as an attacker behind a shared proxy would send."""
    body = b"GET /models HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % len(body)
    responses = exchange(server, head + H2C + b"\r\n" + body + LAST)
    assert [status for status, _ in responses] == [422, 200]


def test_connect_is_rejected(server: Server) -> None:
    ((status, body),) = exchange(server, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + LAST)
    assert status == 501
    assert json.loads(body)["detail"] == "CONNECT is for proxies; allowed are GET, HEAD and POST"


def program(name: str) -> str:
    """Path of a program; skips the test without it."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: its requests with Upgrade are not tested")
    return found


def test_curl_offering_http2_gets_its_images(server: Server) -> None:
    command = [program("curl"), "--silent", "--show-error", "--http2", f"{server.url}/generate"]
    command += ["-H", "Content-Type: application/json", "-d", '{"seed": 5}']
    command += ["--next", *command[1:-1], '{"seed": 6}']
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(answer.stdout)
    second, _ = decoder.raw_decode(answer.stdout, end)
    assert (first["seed"], second["seed"]) == (5, 6)


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Client {
    public static void main(String[] urls) throws Exception {
        var client = HttpClient.newHttpClient();  // HTTP/2 is its default: it offers h2c
        for (int seed = 5; seed < 15; seed++) {
            var request = HttpRequest.newBuilder(URI.create(urls[0] + "/generate"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString("{\\"seed\\": " + seed + "}")).build();
            var response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.body());
        }
    }
}
"""


@pytest.mark.slow
def test_java_client_gets_its_images(server: Server, tmp_path: Path) -> None:
    (tmp_path / "Client.java").write_text(JAVA)
    command = [program("java"), str(tmp_path / "Client.java"), server.url]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    lines = [line.split(" ", 1) for line in answer.stdout.splitlines()]
    assert [status for status, _ in lines] == ["200"] * 10
    assert [json.loads(body)["seed"] for _, body in lines] == list(range(5, 15))


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream figment {{ server {server}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://figment;
            proxy_http_version 1.1;
            proxy_set_header Host localhost;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
        }}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, server: Server) -> Iterator[str]:
    """URL of an nginx before the server, with one connection for the requests of all clients."""
    port = free_port()
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, server=urlsplit(server.url).netloc, port=port))
    with subprocess.Popen([program("nginx"), "-c", str(path)]) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(lambda: httpx.get(f"{url}/healthz")))
            yield url
        finally:
            process.terminate()


def answers(call: Callable[[], httpx.Response]) -> bool:
    try:
        return call().is_success
    except httpx.TransportError:
        return False


def test_clients_behind_nginx_get_their_own_answers(server: Server, tmp_path: Path) -> None:
    offer = {"Connection": "Upgrade", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAA"}
    with nginx(tmp_path, server) as url, httpx.Client(base_url=url) as client:
        for seed in range(20):
            headers = offer if seed % 2 else {"Connection": ""}
            answer = client.post("/generate", json={"seed": seed}, headers=headers)
            assert (answer.status_code, answer.json()["seed"]) == (200, seed)
