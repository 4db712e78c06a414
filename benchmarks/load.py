"""HTTP client of the benchmarks: hundreds of asyncio connections that record how each request ends.

Not a command: ``overload``, ``shutdown`` and ``soak`` use it. ``closed_loop`` uses less CPU, but
offers only closed-loop load, and stops at the first aborted connection.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httptools

MAX_IDLE_SECONDS = 3.0
"""Connections idle for longer are not reused; the server closes them after five seconds."""
RESPONSE_TIMEOUT_SECONDS = 60.0
"""Twice the default ``FIGMENT_TIMEOUT``; a later response counts as lost."""


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
    """Encode a POST of ``body`` as JSON (bytes are sent unchanged), or a GET if it is None."""
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
    """HTTP connection to 127.0.0.1 with one request at a time."""

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect. Raises ``ConnectionRefused``."""
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        except OSError as error:
            raise ConnectionRefused from error
        return connection

    def __init__(self) -> None:
        self.closed = False
        """True after the server or ``close`` closed the connection."""
        self._pending: asyncio.Future[Response] | None = None
        self._keep_body = True
        self._max_bytes: int | None = None

    async def exchange(
        self, content: bytes, *, keep_body: bool = True, max_bytes: int | None = None
    ) -> Response:
        """Send a request and return its complete response.

        max_bytes: close the connection after this many bytes of the body, like a client that
            disconnects.

        Raises ``ConnectionCut``, and ``TimeoutError`` after ``RESPONSE_TIMEOUT_SECONDS``.
        """
        if self.closed:
            raise ConnectionCut(started=False)
        self._parser = httptools.HttpResponseParser(self)
        self._response, self._parts, self._started = Response(), list[bytes](), False
        self._keep_body, self._max_bytes = keep_body, max_bytes
        self._pending = asyncio.get_running_loop().create_future()
        self._sent_at = time.perf_counter()
        self._transport.write(content)
        async with asyncio.timeout(RESPONSE_TIMEOUT_SECONDS):
            return await self._pending

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
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(ConnectionCut(started=self._started))

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

    def _finish(self) -> None:
        response = self._response
        response.status = self._parser.get_status_code()
        response.body = b"".join(self._parts)
        response.seconds = time.perf_counter() - self._sent_at
        if self._pending is not None and not self._pending.done():
            self._pending.set_result(response)


class ConnectionPool:
    """Idle connections, reused only while the server certainly keeps them open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[float, Connection]] = []
        """(Time of becoming idle, connection)."""

    async def exchange(self, content: bytes, **options: Any) -> Response:
        """Send a request over an idle or new connection; options of ``Connection.exchange``.

        Raises ``ConnectionRefused``, ``ConnectionCut`` and ``TimeoutError``.
        """
        connection = await self._connection()
        response = await connection.exchange(content, **options)
        if not connection.closed:
            self._idle.append((time.perf_counter(), connection))
        return response

    async def _connection(self) -> Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.closed and time.perf_counter() - since < MAX_IDLE_SECONDS:
                return connection
            connection.close()
        return await Connection.open(self._port)


def percentile(values: list[float], share: float) -> float:
    """Percentile of ``values`` at ``share`` in [0, 1]; NaN if empty."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
