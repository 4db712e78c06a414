"""Limits of a connection: slow and silent clients, oversized requests, malformed HTTP."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.bare_server import PROGRAM
from tests.helpers.server import Server, serve
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.server

TIMEOUT = 2
BODY = b'{"n": 1, "seed": 3}'
HEAD = (
    b"POST /generate HTTP/1.1\r\nHost: figment\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
LAST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(plain_models: Path) -> Iterator[Server]:
    bounds = ("--max-images", "10000", "--max-queue", "10000", "--max-connections", "1500")
    with serve("--models", str(plain_models), "--timeout", str(TIMEOUT), *bounds) as running:
        yield running


def connect(server: Server) -> socket.socket:
    url = server.client.base_url
    return socket.create_connection((url.host, url.port or 80), timeout=30)


def read_all(connection: socket.socket) -> bytes:
    """Everything that the server sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def problem(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer
    return int(head.split()[1]), json.loads(body)


def serves(server: Server) -> bool:
    return server.client.post("/generate", json={"n": 1}).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 3_000_000,  # which never ends
        b"GET /" + b"a" * 3_000_000,
    ],
    ids=["path", "header", "headers", "endless header", "endless path"],
)
def test_head_size_is_limited(server: Server, head: bytes) -> None:
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        answer = read_all(connection)
        if answer:  # what was not read may reset the connection
            assert problem(answer)[0] == 431
    assert serves(server)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_malformed_http_is_answered_with_400(server: Server, data: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(data)
        status, _ = problem(read_all(connection))
        assert status == 400
    assert serves(server)


@pytest.mark.slow
def test_incomplete_request_times_out(server: Server) -> None:
    """Silence times out, and so does a byte every 0.3 s."""
    silent, head, slow, body = (connect(server) for _ in range(4))
    head.sendall(b"GET /models HTTP/1.1\r\nHost")
    body.sendall(HEAD % len(BODY) + BODY[:5])
    started = time.monotonic()
    closed = False
    while time.monotonic() - started < TIMEOUT + 3 and not closed:
        time.sleep(0.3)
        try:
            slow.sendall(b"X")
        except ConnectionError:
            closed = True
    assert closed
    assert read_all(silent) == b""
    assert problem(read_all(head))[0] == 408
    assert problem(read_all(body))[0] == 408
    assert time.monotonic() - started < TIMEOUT + 5
    for connection in (silent, head, slow, body):
        connection.close()


def test_slow_body_of_an_answered_request_times_out(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        assert b"200 OK" in connection.recv(1000)
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < TIMEOUT + 3:
                connection.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() - started < TIMEOUT + 3


def test_client_that_reads_nothing_is_disconnected(server: Server) -> None:
    body = b'{"n": 10000, "model": "plain"}'
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        url = server.client.base_url
        connection.connect((url.host, url.port or 80))
        connection.sendall(HEAD % len(body) + body)
        wait_for_disconnect(server, connection)
        with pytest.raises((ConnectionError, AssertionError)):
            taken = read_all(connection)
            assert taken.endswith(b"]}")


def wait_for_disconnect(server: Server, client: socket.socket) -> None:
    """Wait until the server has accepted a connection, and then until it is closed."""
    process, address = psutil.Process(server.process.pid), client.getsockname()

    def accepted() -> bool:
        return any(each.raddr == address for each in process.net_connections("tcp"))

    wait_until(accepted, 20)
    wait_until(lambda: not accepted(), 20)


def connections(server: Server) -> int:
    return len(psutil.Process(server.process.pid).net_connections("tcp"))


def test_thousand_incomplete_requests_do_not_delay_others(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    handles = psutil.Process(server.process.pid).num_fds()
    held = []
    for number in range(1000):
        connection = connect(server)
        if number % 2:
            connection.sendall(b"POST /generate HTTP/1.1\r\nHost: figment\r\nContent-Le")
        held.append(connection)
    wait_until(lambda: psutil.Process(server.process.pid).num_fds() >= handles + 900, TIMEOUT)
    for _ in range(5):
        assert serves(server)
    wait_until(lambda: psutil.Process(server.process.pid).num_fds() <= handles + 5, TIMEOUT + 5)
    for connection in held:
        connection.close()
    assert serves(server)


def test_surplus_connections_are_answered_503() -> None:
    options = ("--max-connections", "20", "--timeout", "30")
    request = b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with serve(*options, program=PROGRAM) as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(20)]
        wait_until(lambda: connections(server) >= 20)
        with connect(server) as surplus:
            surplus.sendall(request)
            status, body = problem(read_all(surplus))
            assert status == 503
            assert body["detail"] == "at most 20 connections are served at a time"
        held[0].sendall(request)
        assert b"200 OK" in read_all(held[0])
        wait_until(lambda: connections(server) <= 20)
        with connect(server) as another:
            another.sendall(request)
            assert b"200 OK" in read_all(another)


@pytest.mark.parametrize("count", [20, 102, 2000])
def test_pipelined_requests_are_answered_in_order(server: Server, count: int) -> None:
    """In one packet or many, and however many there are."""
    paths = [b"/models/m%d" % number for number in range(count)]
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in paths)
    with connect(server) as connection:
        connection.sendall(requests + LAST)
        answers = read_all(connection)
    found = re.findall(rb"no model '(m\d+)'|(alive)", answers)
    assert [b"/models/" + name for name, _ in found[:-1]] == paths
    assert found[-1][1] == b"alive"


def test_pipelined_images_are_answered_in_order(server: Server) -> None:
    bodies = [b'{"n": %d, "seed": %d}' % (seed % 4 + 1, seed) for seed in range(20)]
    with connect(server) as connection:
        connection.sendall(b"".join(HEAD % len(body) + body for body in bodies) + LAST)
        answers = read_all(connection)
    assert [int(seed) for seed in re.findall(rb'"seed": ?(\d+)', answers)] == list(range(20))
    assert answers.endswith(b'{"status":"alive"}')


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, b"431"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", b"501"),
    ],
    ids=["malformed", "TLS", "malformed body", "large head", "CONNECT"],
)
def test_requests_before_a_rejected_one_are_answered(
    server: Server, last: bytes, status: bytes
) -> None:
    body = b'{"n": 32}'
    with connect(server) as connection:
        connection.sendall(2 * (HEAD % len(body) + body) + last)
        answers = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", status]


@pytest.mark.parametrize("declared", [True, False])
def test_large_body_gets_one_answer(server: Server, declared: bool) -> None:
    length = b"Content-Length: 20000000" if declared else b"Transfer-Encoding: chunked"
    part = b"x" * 10_000
    with connect(server) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            + length
            + b"\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                connection.sendall(part if declared else b"%x\r\n%b\r\n" % (len(part), part))
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 413") == answers.count(b"HTTP/1.1") <= 1
    assert serves(server)


def test_body_that_becomes_invalid_after_its_answer_gets_no_second_one(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert b"200 OK" in connection.recv(1000)
        connection.sendall(b"xyz\r\n")
        assert read_all(connection) == b""


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"identity", b"deflate,chunked"])
def test_transfer_codings_other_than_chunked_are_rejected(server: Server, coding: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: %b\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % coding
        )
        status, body = problem(read_all(connection))
    assert (status, body["detail"]) == (501, "the only Transfer-Encoding allowed is chunked")


@pytest.mark.parametrize("n", [1, 4000])
def test_half_closed_client_gets_its_answers(server: Server, n: int) -> None:
    body = b'{"n": %d, "seed": 3}' % n
    with connect(server) as connection:
        connection.sendall(2 * (HEAD % len(body) + body))
        connection.shutdown(socket.SHUT_WR)
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.count(b'"index"') == 2 * n


@pytest.mark.parametrize("request_", [(HEAD % len(BODY) + BODY)[:-1], HEAD[:40]])
def test_half_closed_client_with_an_incomplete_request_gets_400(
    server: Server, request_: bytes
) -> None:
    with connect(server) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        status, body = problem(read_all(connection))
    assert status == 400
    assert body["detail"] == "the connection was closed before the request was complete"


def test_trailers_are_not_headers(server: Server) -> None:
    """A proxy in front checks headers, and may let trailers pass unchecked."""
    with connect(server) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close\r\n\r\n2\r\n{}\r\n0\r\nContent-Type: application/json\r\n"
            b"X-Request-ID: forged\r\n\r\n"
        )
        answer = read_all(connection)
    assert b"HTTP/1.1 422" in answer
    assert b"send a JSON object with Content-Type" in answer
    assert b"forged" not in answer


@pytest.mark.parametrize("line", [b"a%d: b\r\n", b"a%d"], ids=["trailers", "one trailer"])
def test_trailer_size_is_limited(server: Server, line: bytes) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with connect(server) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        )
        part = b"".join(line % number for number in range(20_000))
        with pytest.raises(ConnectionError):
            for _ in range(200):
                connection.sendall(part)
    assert process.memory_info().rss < before + 50_000_000
    assert serves(server)


def test_pipelined_flood_does_not_delay_others(server: Server) -> None:
    packet = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(server))
            connection.settimeout(1)
            with contextlib.suppress(OSError):
                connection.sendall(packet)
        started = time.monotonic()
        assert serves(server)
        assert time.monotonic() - started < 5


def test_pipelining_client_that_reads_nothing_is_disconnected(server: Server) -> None:
    with connect(server) as connection:
        bundle = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n"
        connection.sendall(bundle * 50)
        wait_for_disconnect(server, connection)


def test_complete_request_is_answered_whatever_follows(server: Server) -> None:
    body = BODY + b" " * 70_000
    with connect(server) as connection:
        connection.sendall(HEAD % len(body) + body + b"GET /healthz HT")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
