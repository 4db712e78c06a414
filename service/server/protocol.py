"""One HTTP connection, with limits on sizes, on time and on what is read ahead."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
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
"""Bytes of the request line and headers."""
PARSED_BYTES = 4096
"""Bytes parsed at a time: at most some 200 pipelined requests, which wait as objects of 3 kB."""
HALF_CLOSED_SECONDS = 0.2
"""Interval of interim responses that detect that a client has closed its connection entirely."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


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


class _ReadControl(FlowControl):
    """Flow control that reads nothing while received requests wait for the current one."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedHttpProtocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not (self._protocol.pipeline or self._protocol.unparsed):
            super().resume_reading()


class _RequestRejected(Exception):
    """Raised in a parser callback, with the arguments of ``_reject``."""


HEAD_TOO_LARGE = (431, "Head too large", f"a head may have at most {MAX_HEAD} bytes")
BODY_TOO_LARGE = (413, "Body too large", f"a request may have at most {MAX_RAW} bytes")
NOT_HTTP = (400, "Malformed request", "this is not HTTP/1.1")
CUT = (400, "Malformed request", "the connection was closed before the request was complete")
TUNNEL = (501, "Not implemented", "CONNECT is for proxies; allowed are GET, HEAD and POST")
ENCODED = (501, "Not implemented", "the only Transfer-Encoding allowed is chunked")


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits on sizes and times.

    A request must arrive completely within ``timeout`` seconds of its first byte, or of the
    connection. A client that reads nothing for twice ``timeout`` is disconnected; once the server
    has closed the connection, after ``timeout``. While a request waits for the answer to an earlier
    one, nothing more is read.
    """

    def __init__(self, *, timeout: float, max_connections: int, **options: Any) -> None:
        super().__init__(**options)
        self._timeout = timeout
        self._max_connections = max_connections

    # asyncio types the transport as its base class; _CoalescingTransport has what uvicorn calls.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        coalescing = _CoalescingTransport(transport, self.loop)
        super().connection_made(coalescing)  # type: ignore[arg-type]  # as above
        self.flow = _ReadControl(transport, self)
        self.unparsed: bytes | memoryview = b""
        self._current: RequestResponseCycle | None = None
        """The request being answered; uvicorn's ``cycle`` is the last one received."""
        self._incomplete_since: float | None = time.monotonic()
        self._in_head = True
        """False from the end of a head to the end of its body."""
        self._request_bytes = 0
        """Bytes of the incomplete request, and of others parsed together with its first byte."""
        self._rejection = b""
        """Last answer of the connection, which may wait for the answers to earlier requests."""
        self._surplus = len(self.connections) > self._max_connections
        self._unsent, self._unsent_since = 0, 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._current is not None:  # uvicorn notifies the last request received
            self._current.disconnected = True
            self._current.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.unparsed = data if len(data) <= PARSED_BYTES else memoryview(data)
        self._parse()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn never keeps it open
        """Keep the connection open for an answer: the client may have closed only its own side."""
        if self._in_head and not self._idle:
            if not self._rejection:
                self.cycle.keep_alive = False
            self.loop.call_later(HALF_CLOSED_SECONDS, self._detect_disconnect)
            return True
        if self._incomplete_since is not None and self._request_bytes:
            self._reject(*CUT)
        return False

    def on_message_begin(self) -> None:
        self._start_request()
        super().on_message_begin()
        # ASGI allows any value for an extension; uvicorn's types allow only a mapping.
        self.scope["extensions"] = {ABORT: self._abort}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers are dropped: they must not act as headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise _RequestRejected(*TUNNEL)
        for name, value in self.headers:
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise _RequestRejected(*ENCODED)
        if self._surplus:
            detail = f"at most {self._max_connections} connections are served at a time"
            raise _RequestRejected(503, "Too many connections", detail)
        if self.parser.should_upgrade():
            return  # _feed parses it again, without Upgrade
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._incomplete_since, self._in_head = None, True
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._rejection and self._idle:
            self._close_with_rejection()
            return
        if self._incomplete_since is not None:  # it was not read meanwhile
            self._incomplete_since = time.monotonic()
        self._parse()
        self.flow.resume_reading()

    def check_timeouts(self, now: float) -> None:
        """Close the connection if its request or its client is too slow; called every second."""
        since = self._incomplete_since
        if since is not None and now > since + self._timeout and not self.flow.read_paused:
            if self._request_bytes:
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

    @property
    def _idle(self) -> bool:
        """True if every request that was received completely has its answer."""
        return self._current is None or self._current.response_complete

    def _parse(self) -> None:
        """Parse what was received, until a request waits for the answer to an earlier one."""
        while self.unparsed and not (self.pipeline or self._rejection):
            if self.transport.is_closing():
                return
            self._unset_keepalive_if_required()
            if self._incomplete_since is None:
                self._start_request()
            part = self.unparsed[:PARSED_BYTES]
            self.unparsed = self.unparsed[PARSED_BYTES:] or b""
            self._feed(part)
            self._request_bytes += len(part)
            if self._incomplete_since is not None:
                if self._in_head and self._request_bytes > MAX_HEAD:
                    self._reject(*HEAD_TOO_LARGE)
                elif self._request_bytes > MAX_RAW:
                    self._reject(*BODY_TOO_LARGE)

    def _feed(self, part: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            # A server may ignore Upgrade (RFC 9110, 7.8), but httptools has skipped the body.
            (end_of_head,) = upgrade.args
            self._feed(self._head_without_upgrade())
            self._feed(part[end_of_head:])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._reject(*(cause.args if isinstance(cause, _RequestRejected) else NOT_HTTP))

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = [field for field in self.headers if field[0] != b"upgrade"]
        lines = [b"%b %b HTTP/%b" % (method, self.url, version), *map(b": ".join, fields)]
        return b"\r\n".join([*lines, b"\r\n"])

    def _start_request(self) -> None:
        """Reset the counters: the next bytes may start a request."""
        self._incomplete_since = time.monotonic()
        self._in_head, self._request_bytes = True, 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _detect_disconnect(self) -> None:
        """Send interim responses until the answer starts.

        A client that has closed both sides replies with a reset, and the next write fails.
        """
        current = self._current
        if current and not (self.transport.is_closing() or current.response_started):
            if current.scope["http_version"] == "1.1":
                self.transport.write(CONTINUE)
            self.loop.call_later(HALF_CLOSED_SECONDS, self._detect_disconnect)

    def _reject(self, status: int, title: str, detail: str) -> None:
        """Answer an incomplete or invalid request with a problem document, and close.

        Earlier requests are answered first.
        """
        if self._rejection:
            return
        self._incomplete_since = None
        waits = not self._idle
        if not self._in_head:  # the request is uvicorn's ``cycle``
            if self.cycle.response_started:
                self.transport.close()
                return
            waits = self.cycle is not self._current
            if waits:
                self.pipeline.popleft()
            self.cycle.disconnected = True  # a route may still wait for its body
            self.cycle.message_event.set()
        answer = problem(status, title, detail)
        metrics.REJECTIONS.labels(answer["type"].removeprefix(KIND)).inc()
        body = problem_bytes(answer)
        head = STATUS_LINE[status] + b"".join(
            b"%b: %b\r\n" % field for field in self.server_state.default_headers
        )
        fields = f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        self._rejection = head + fields.encode() + b"connection: close\r\n\r\n" + body
        if not waits:
            self._close_with_rejection()

    def _close_with_rejection(self) -> None:
        self.transport.write(self._rejection)
        self.transport.close()

    def _abort(self) -> None:
        """Close the connection in the middle of an answer, as if the client had disconnected."""
        assert self._current is not None
        self._current.disconnected = True
        self.transport.close()
