"""Load generator: requests to one server, sent as a policy says, and how they end.

    python -m benchmarks.load URL [BODY] [--connections 32 | --rate 100] [--fresh] [--seconds 4]

Needs a running server without API keys; takes ``--seconds``. Sends POST with BODY as JSON, or GET.
Closed loop: each connection sends its next request as soon as it has a response. Open loop, with
``--rate``: requests start at random times (a Poisson process), whatever becomes of the others.
Prints JSON: responses with 200 per second, their latency in milliseconds, 429s, other errors. One
thread uses some 40 microseconds for a request.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import click
import httptools
import uvloop

MAX_IDLE_SECONDS = 3.0
"""Connections idle for longer are not reused; the server closes them after five seconds."""
RESPONSE_TIMEOUT_SECONDS = 60.0
"""Twice the default ``FIGMENT_TIMEOUT``; a later response counts as lost."""
PAUSE_SECONDS = 0.05
"""Pause of a closed-loop client after anything but a response with 200."""


class ConnectionRefused(Exception):
    """No connection was established, so the server has not accepted the request."""


class ConnectionCut(Exception):
    """The connection closed before its response was complete."""

    def __init__(self, *, started: bool) -> None:
        super().__init__("the connection was cut")
        self.started = started
        """True if part of the response had arrived."""


@dataclass
class Response:
    """HTTP response. Without ``keep_body`` only the size of its body is known."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    size: int = 0
    """Bytes of the body."""
    seconds: float = 0
    """Time since the request was sent."""

    @property
    def retry_after(self) -> int:
        """Retry-After in seconds. Raises ``KeyError`` without this header."""
        return int(self.headers["retry-after"])


def request(
    path: str, body: Any = None, *, key: str | None = None, headers: str = "", close: bool = False
) -> bytes:
    """Encode a POST of ``body`` as JSON (bytes are sent unchanged), or a GET if it is None.

    close: ask the server to close the connection, so that the next request needs a new one.
    """
    if not (body is None or isinstance(body, bytes)):
        body = json.dumps(body).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: localhost"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + f"\r\n{headers}\r\n").encode() + (body or b"")


class Connection(asyncio.Protocol):
    """HTTP connection with one request at a time."""

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> Connection:
        """Connect. Raises ``ConnectionRefused``."""
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(cls, host, port)
        except OSError as error:
            raise ConnectionRefused from error
        return connection

    def __init__(self) -> None:
        self.closed = False
        """True after the server or ``close`` closed the connection."""
        self._pending: asyncio.Future[Response] | None = None
        self._started = False
        self._keep_body = True
        self._max_bytes: int | None = None

    async def exchange(
        self,
        content: bytes,
        *,
        keep_body: bool = True,
        max_bytes: int | None = None,
        timeout: float = RESPONSE_TIMEOUT_SECONDS,
    ) -> Response:
        """Send a request and return its complete response.

        max_bytes: close the connection after this many bytes of the body, like a client that
            disconnects.

        Raises ``ConnectionCut``, and ``TimeoutError`` after ``timeout`` seconds.
        """
        if self.closed:
            raise ConnectionCut(started=False)
        self._parser = httptools.HttpResponseParser(self)
        self._response, self._parts, self._started = Response(), list[bytes](), False
        self._keep_body, self._max_bytes = keep_body, max_bytes
        loop = asyncio.get_running_loop()
        self._pending = loop.create_future()
        self._sent_at = time.perf_counter()
        self._transport.write(content)
        timer = loop.call_later(timeout, self._fail, TimeoutError())  # asyncio.timeout costs 3 us
        try:
            return await self._pending
        finally:
            timer.cancel()

    def send(self, content: bytes) -> None:
        """Send bytes that are not a complete request, without waiting for a response."""
        self._transport.write(content)

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    # Callbacks of asyncio.

    # asyncio types the transport as its base class, which cannot write.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.port: int = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        if self._pending is not None:
            self._started = True
            self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail(ConnectionCut(started=self._started))

    # Callbacks of the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode().lower()] = value.decode()

    def on_body(self, part: bytes) -> None:
        self._response.size += len(part)
        if self._keep_body:
            self._parts.append(part)
        if self._max_bytes is not None and self._response.size >= self._max_bytes:
            self.close()
            self._finish()

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        self._finish()

    def _fail(self, error: Exception) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(error)

    def _finish(self) -> None:
        response = self._response
        response.status = self._parser.get_status_code()
        response.body = b"".join(self._parts)
        response.seconds = time.perf_counter() - self._sent_at
        if self._pending is not None and not self._pending.done():
            self._pending.set_result(response)


class ConnectionPool:
    """Idle connections, reused only while the server certainly keeps them open."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = port, host
        self._idle: list[tuple[float, Connection]] = []
        """(Time of becoming idle, connection)."""

    async def exchange(self, content: bytes, **options: Any) -> Response:
        """Send a request over an idle or new connection; options of ``Connection.exchange``.

        Raises ``ConnectionRefused``, ``ConnectionCut`` and ``TimeoutError``.
        """
        connection = await self._connection()
        try:
            response = await connection.exchange(content, **options)
        except TimeoutError:
            connection.close()
            raise
        if not connection.closed:
            self._idle.append((time.perf_counter(), connection))
        return response

    def close(self) -> None:
        for _, connection in self._idle:
            connection.close()

    async def _connection(self) -> Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.closed and time.perf_counter() - since < MAX_IDLE_SECONDS:
                return connection
            connection.close()
        return await Connection.open(*self._address)


@dataclass(frozen=True)
class Policy:
    """Pattern of a load."""

    connections: int = 1
    """Clients of the closed loop."""
    rate: float | None = None
    """Requests per second of an open loop, instead of a closed one."""
    timeout: float = RESPONSE_TIMEOUT_SECONDS


@dataclass
class LoadResult:
    """Result of one load; latency percentiles in milliseconds."""

    served: int
    """Responses with 200."""
    requests_per_second: float
    """Responses with 200 per second."""
    p50: float
    p95: float
    p99: float
    rejected: int
    """Responses with 429."""
    errors: int
    """Requests that ended neither with 200 nor with 429."""


class Load:
    """Requests sent by ``policy``. Its attributes say how they ended so far."""

    def __init__(
        self, port: int, contents: Iterator[bytes], policy: Policy, *, host: str = "127.0.0.1"
    ) -> None:
        """``contents``: encoded requests, without end."""
        self._contents = contents
        self._policy = policy
        self._pool = ConnectionPool(port, host)
        self._random = random.Random(5)
        self._end = math.inf
        self.outcomes: Counter[str] = Counter()
        """Number of requests by status or exception."""
        self.latencies: list[float] = []
        """Seconds from each request, or from the time when it was due, to its response with 200."""
        self.longest = 0.0
        """Seconds of the slowest request, whatever its status."""
        self.requests_per_second = 0.0
        """Responses with 200 per second while requests were sent."""

    @property
    def failed(self) -> Counter[str]:
        """Number of requests without status 200, by status or exception."""
        return Counter({kind: count for kind, count in self.outcomes.items() if kind != "200"})

    @property
    def result(self) -> LoadResult:
        p50, p95, p99 = (1000 * percentile(self.latencies, share) for share in (0.5, 0.95, 0.99))
        rejected = self.outcomes["429"]
        errors = self.failed.total() - rejected
        return LoadResult(
            self.outcomes["200"], self.requests_per_second, p50, p95, p99, rejected, errors
        )

    async def run(self, seconds: float = math.inf) -> None:
        """Send for ``seconds`` or until ``stop``, and wait for the responses."""
        self._end = min(self._end, time.perf_counter() + seconds)
        if self._policy.rate is None:
            await asyncio.gather(*(self._client() for _ in range(self._policy.connections)))
        else:
            await self._send_at(self._policy.rate)
        self._pool.close()

    def stop(self) -> None:
        """Send no more requests. Callable on any thread."""
        self._end = 0

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Run on another thread within the context."""
        thread = threading.Thread(target=lambda: uvloop.run(self.run()))
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    async def _client(self) -> None:
        """Closed loop of one client. Counts until its own last response."""
        served, started = 0, time.perf_counter()
        while (now := time.perf_counter()) < self._end:
            if await self._send(now):
                served += 1
            else:
                await asyncio.sleep(PAUSE_SECONDS)
        self.requests_per_second += served / (time.perf_counter() - started)

    async def _send_at(self, rate: float) -> None:
        """Open loop of ``rate`` requests per second."""
        started = due = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while (due := due + self._random.expovariate(rate)) < self._end:
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                tasks.create_task(self._send(due))
            self.requests_per_second = self.outcomes["200"] / (time.perf_counter() - started)

    async def _send(self, due: float) -> bool:
        """Send one request; return True if its response has status 200."""
        try:
            response = await self._pool.exchange(
                next(self._contents), keep_body=False, timeout=self._policy.timeout
            )
            outcome = str(response.status)
        except (ConnectionCut, ConnectionRefused, TimeoutError) as error:
            outcome = type(error).__name__
        took = time.perf_counter() - due
        self.outcomes[outcome] += 1
        self.longest = max(self.longest, took)
        if outcome == "200":
            self.latencies.append(took)
        return outcome == "200"


def percentile(values: list[float], share: float) -> float:
    """Percentile of ``values`` at ``share`` in [0, 1]; NaN if empty."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


@click.command()
@click.argument("url")
@click.argument("body", default="")
@click.option("--connections", default=1, show_default=True, help="Clients of the closed loop.")
@click.option("--rate", type=float, help="Requests per second of an open loop.")
@click.option("--fresh", is_flag=True, help="Send each request over a new connection.")
@click.option("--seconds", default=4.0, show_default=True)
def main(
    url: str, body: str, connections: int, rate: float | None, fresh: bool, seconds: float
) -> None:
    """Send requests to URL and print their rate and latency as JSON."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    content = request(target, body.encode() or None, close=fresh)
    policy = Policy(connections, rate)
    load = Load(parts.port, itertools.repeat(content), policy, host=parts.hostname)
    uvloop.run(load.run(seconds))
    print(json.dumps(asdict(load.result)))


if __name__ == "__main__":
    main()
