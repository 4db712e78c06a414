"""Hundreds of asyncio clients in one thread, which observe how each request ends.

``load.py`` is lighter still, but has only closed-loop clients, and does not survive aborted
connections.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httptools

FRESH = 3.0
"""Idle seconds after which a connection is not reused; the server closes it after five."""
LIMIT = 60.0
"""Seconds after which a response counts as lost."""


class Refused(Exception):
    """Connection refused: the server has accepted nothing."""


class Cut(Exception):
    """The connection closed before its response was complete."""

    def __init__(self, *, begun: bool) -> None:
        super().__init__("the connection was cut")
        self.begun = begun
        """True if part of the response had arrived."""


@dataclass
class Answer:
    """Response; ``seconds`` since its request was sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    size: int = 0
    seconds: float = 0
    last: bool = False
    """True if the server closes the connection after it."""

    @property
    def retry_after(self) -> int:
        """Retry-After in seconds."""
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
    """HTTP connection with one request at a time."""

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect. Raises ``Refused``."""
        try:
            loop = asyncio.get_running_loop()
            _, made = await loop.create_connection(cls, "127.0.0.1", port)
        except OSError as error:
            raise Refused from error
        return made

    def __init__(self) -> None:
        self.closed = False
        """True after the server or ``close`` closed the connection."""
        self._answer: asyncio.Future[Answer] | None = None
        self._keep = True
        self._most: int | None = None

    async def exchange(
        self, content: bytes, *, keep: bool = True, most: int | None = None
    ) -> Answer:
        """Send a request and return its complete response. Raises ``Cut``.

        keep: store the body, not only its size.
        most: close the connection after this many bytes, like a client that disconnects.
        """
        if self.closed:
            raise Cut(begun=False)
        self._parser = httptools.HttpResponseParser(self)
        self._got, self._parts, self._begun = Answer(), list[bytes](), False
        self._keep, self._most = keep, most
        self._answer = asyncio.get_running_loop().create_future()
        self._sent = time.perf_counter()
        self._transport.write(content)
        async with asyncio.timeout(LIMIT):
            return await self._answer

    def send(self, content: bytes) -> None:
        """Send bytes that are no complete request; no response is awaited."""
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
        if self._answer is not None:
            self._begun = True
            self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Cut(begun=self._begun))

    # Callbacks of the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._got.headers[name.decode().lower()] = value.decode()

    def on_body(self, part: bytes) -> None:
        self._got.size += len(part)
        if self._keep:
            self._parts.append(part)
        if self._most is not None and self._got.size >= self._most:
            self.close()
            self._finish()

    def on_message_complete(self) -> None:
        self._got.last = not self._parser.should_keep_alive()
        if self._got.last:
            self.close()
        self._finish()

    def _finish(self) -> None:
        got = self._got
        got.status = self._parser.get_status_code()
        got.body = b"".join(self._parts)
        got.seconds = time.perf_counter() - self._sent
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(got)


class Pool:
    """Idle connections, reused only while the server certainly keeps them open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[float, Connection]] = []
        """(Time of becoming idle, connection)."""

    async def exchange(self, content: bytes, **options: Any) -> Answer:
        """Send a request over a pooled or new connection. Raises ``Refused`` and ``Cut``."""
        connection = await self._take()
        answer = await connection.exchange(content, **options)
        if not connection.closed:
            self._idle.append((time.perf_counter(), connection))
        return answer

    async def _take(self) -> Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.closed and time.perf_counter() - since < FRESH:
                return connection
            connection.close()
        return await Connection.open(self._port)

    def close(self) -> None:
        for _, connection in self._idle:
            connection.close()
        self._idle.clear()


def percentile(values: list[float], share: float) -> float:
    """Percentile of ``values`` at ``share`` in [0, 1]; NaN if empty."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
