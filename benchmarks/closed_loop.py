"""Closed-loop load generator: throughput and latency over keep-alive connections.

    python -m benchmarks.closed_loop URL '{"n": 1}' --connections 32 --seconds 4

Needs a running server without API keys; takes ``--seconds``. Each connection sends its next request
as soon as it has a response. One thread and no HTTP library use about 30 microseconds per request,
a hundredth of the time of an image, so that the server keeps the cores. Prints JSON: requests per
second, latency percentiles in milliseconds, errors.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import click

READ_BYTES = 1 << 18


@dataclass
class LoadResult:
    """Result of one load; latency percentiles in milliseconds."""

    requests: int
    requests_per_second: float
    p50: float
    p95: float
    p99: float
    errors: int
    """Responses with a status other than 200."""


class Connection:
    """Keep-alive connection that sends one fixed request, one at a time."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self.completed_at: list[float] = []
        """Completion times of its responses, by ``time.perf_counter``."""

    def send(self) -> None:
        self._head = b""
        self._missing_bytes: int | None = None
        self.sent_at = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """Read once; return True if the response is complete, and set ``last`` if it is the last.

        Raises ``SystemExit`` if the server closed the connection.
        """
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise SystemExit("the server closed a connection")
        if self._missing_bytes is None:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return False
            self.status = head[9:12].decode()
            self.ok = self.status == "200"
            self.last = b"\r\nconnection: close" in head.lower()
            length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
            self._missing_bytes = int(length) - len(body)
        else:
            self._missing_bytes -= len(data)
        return self._missing_bytes == 0


def run_load(url: str, body: bytes, connections: int, seconds: float) -> LoadResult:
    """Send requests to ``url`` for ``seconds``; started requests are finished."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    request = (
        f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    latencies: list[float] = []
    errors = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            connection = Connection(parts.hostname, parts.port, request)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()
        all_connections = [key.data for key in selector.get_map().values()]
        started = min(connection.sent_at for connection in all_connections)
        end = started + seconds
        while selector.get_map():
            for key, _ in selector.select():
                connection = key.data
                if not connection.receive():
                    continue
                now = time.perf_counter()
                latencies.append(now - connection.sent_at)
                errors += not connection.ok
                connection.completed_at.append(now)
                if now < end:
                    connection.send()
                else:
                    selector.unregister(connection.socket)
                    connection.socket.close()
    latencies.sort()

    def percentile_ms(share: float) -> float:
        return 1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)]

    return LoadResult(
        len(latencies),
        # Each connection counts until its own last response, since they stop at different times.
        sum(
            len(connection.completed_at) / (connection.completed_at[-1] - started)
            for connection in all_connections
        ),
        percentile_ms(0.5),
        percentile_ms(0.95),
        percentile_ms(0.99),
        errors,
    )


@click.command()
@click.argument("url")
@click.argument("body")
@click.option("--connections", default=1, show_default=True)
@click.option("--seconds", default=4.0, show_default=True)
def main(url: str, body: str, connections: int, seconds: float) -> None:
    """Send POST requests with BODY to URL and print their rate and latency as JSON."""
    print(json.dumps(asdict(run_load(url, body.encode(), connections, seconds))))


if __name__ == "__main__":
    main()
