"""One HTTP connection, with limits on sizes, on pipelined requests and on time."""

from __future__ import annotations

import asyncio
import functools
import operator
import select
import socket
import time
from collections import deque
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.api.http_constants import MAX_RAW, PROBLEM_MEDIA_TYPE
from service.api.middleware.gateway import ABORT
from service.errors import KIND, RequestTimeout, problem, problem_bytes
from service.observability import metrics

COALESCE_BYTES = 1 << 16
"""Larger writes are sent at once, without a copy."""
MAX_HEAD = 1 << 16
"""Bytes of the request line and headers, and of the trailers after a body."""
MAX_PIPELINED = 100
"""Requests of one connection that wait for the current one to be answered."""


class _CoalescingTransport:
    """Transport that merges the writes of one event loop iteration into one.

    uvicorn writes the head and the body of an answer separately, and uvloop sends each at once: two
    packets, two system calls, and a client that wakes up twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return  # the client disconnected, as the app is about to learn; uvloop would raise
        if len(data) > COALESCE_BYTES:
            self._send()
            self._transport.write(data)
            return
        if not self._pending:
            self._loop.call_soon(self._send)
        self._pending += data

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        data, self._pending = self._pending, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)


class _RequestRejected(Exception):
    """Raised in a parser callback; ``send_400_response`` then sends the stored rejection."""


TOO_MANY = (429, "Too many requests at once", "wait for answers before sending more requests")
HEAD_TOO_LARGE = (431, "Head too large", f"a head may have at most {MAX_HEAD} bytes")


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits on sizes and times.

    A request must arrive completely within ``timeout`` seconds of its first byte, or of the
    connection. A client that reads nothing for twice ``timeout`` is disconnected; once the server
    has closed the connection, after ``timeout``.
    """

    def __init__(self, *, timeout: float, max_connections: int, **options: Any) -> None:
        super().__init__(**options)
        self._timeout = timeout
        self._max_connections = max_connections

    # asyncio types the transport as its base class; _CoalescingTransport has what uvicorn calls.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio sets TCP_NODELAY only on sockets of protocol TCP, and the shared socket of worker
        # processes has protocol 0. Without it, a small answer may wait 40 ms for the client's ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incomplete_since: float | None = time.monotonic()
        self._in_head = True
        self._field_bytes = 0
        """Bytes of header and trailer fields received of the current request."""
        self._request_bytes = 0
        """Bytes of the current request, except those received together with its first one."""
        self._read_bytes = 0
        """Bytes of the last read."""
        self._rejection: tuple[int, str, str] | None = None
        self._unsent, self._unsent_since = 0, 0.0
        self._unanswered: deque[RequestResponseCycle] = deque()
        coalescing = _CoalescingTransport(transport, self.loop)
        super().connection_made(coalescing)  # type: ignore[arg-type]  # as above
        if len(self.connections) > self._max_connections and not self._evict_slowest():
            detail = f"at most {self._max_connections} connections are served at a time"
            self._reject(503, "Too many connections", detail)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn notifies only the last request, which may wait behind the one being answered.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._incomplete_since is None:
            self._start_request()
        self._read_bytes = len(data)
        super().data_received(data)
        self._request_bytes += len(data)
        if self._in_head and self._request_bytes > MAX_HEAD:
            self._reject(*HEAD_TOO_LARGE)
        elif self._request_bytes > MAX_RAW:
            self._reject(413, "Body too large", f"a request may have at most {MAX_RAW} bytes")

    def on_message_begin(self) -> None:
        self._start_request()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(b": \r\n"))
        if self._in_head:  # trailers are dropped: they must not act as headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.pipeline) >= MAX_PIPELINED:
            self._rejection = TOO_MANY
            raise _RequestRejected
        super().on_headers_complete()
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        self._unanswered.append(self.cycle)
        abort = functools.partial(self._abort, self.cycle)
        # ASGI allows any value for an extension; uvicorn's types allow only a mapping.
        self.scope["extensions"] = {ABORT: abort}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        self._incomplete_since = None
        self._request_bytes = -self._read_bytes
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP, and requests that a callback above rejected. uvicorn calls it."""
        self._reject(*(self._rejection or (400, "Malformed request", "this is not HTTP/1.1")))

    def shutdown(self) -> None:
        """Close an idle connection; otherwise the current answer is the last one."""
        idle = self.cycle is None or self.cycle.response_complete
        if not (idle and self._has_unread_data()):
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        if not self._has_unread_data():
            super().timeout_keep_alive_handler()

    def check_timeouts(self, now: float) -> None:
        """Close the connection if its request or its client is too slow; called every second."""
        since = self._incomplete_since
        if since is not None and now > since + self._timeout and not self.flow.read_paused:
            if not self._in_head or self._field_bytes or self._request_bytes:
                detail = f"a request must arrive completely within {self._timeout:g} s"
                self._reject(RequestTimeout.status, RequestTimeout.title, detail)
            else:
                self.transport.abort()
        # A stream has its own timeout for a client that stops reading, which should fire first.
        limit = self._timeout * (1 if self.transport.is_closing() else 2)
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif unsent and now > self._unsent_since + limit:
            self.transport.abort()

    def _has_unread_data(self) -> bool:
        """True if unread bytes wait in the socket: a request sent before shutdown is answered."""
        if self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _start_request(self) -> None:
        """Reset the counters: the next bytes may start a request."""
        self._incomplete_since = time.monotonic()
        self._in_head, self._field_bytes, self._request_bytes = True, 0, -self._read_bytes

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MAX_HEAD:
            self._rejection = HEAD_TOO_LARGE
            raise _RequestRejected

    def _evict_slowest(self) -> bool:
        """Close the connection with the oldest incomplete request; False if there is none."""
        others = [
            (other._incomplete_since, other)
            for other in self.connections
            if isinstance(other, BoundedHttpProtocol)
            and other is not self
            and other._incomplete_since is not None
            and not other.transport.is_closing()
        ]
        if others:
            _, oldest = min(others, key=operator.itemgetter(0))
            oldest.transport.abort()
        return bool(others)

    def _reject(self, status: int, title: str, detail: str) -> None:
        """Answer an incomplete or invalid request with a problem document, and close."""
        answer = problem(status, title, detail)
        metrics.REJECTIONS.labels(answer["type"].removeprefix(KIND)).inc()
        if self._may_answer():
            body = problem_bytes(answer)
            head = STATUS_LINE[status] + b"".join(
                b"%b: %b\r\n" % field for field in self.server_state.default_headers
            )
            fields = f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(head + fields.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _may_answer(self) -> bool:
        """True if no other answer is being sent. Stops a route that still waits for a body."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        if cycle.response_started or self.pipeline or self._in_head:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _abort(self, cycle: RequestResponseCycle) -> None:
        """Close the connection in the middle of an answer, as if the client had disconnected."""
        cycle.disconnected = True
        self.transport.close()
