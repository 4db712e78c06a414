"""One HTTP connection, bounded in what it may send and in how long it may take."""

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

AT_ONCE = 1 << 16
"""Bytes that are sent at once, and not copied together with others."""
MAX_HEAD = 1 << 16
"""Bytes of a request's first line and headers, and of the trailers behind its body."""
MAX_PIPELINED = 100
"""Requests that wait behind the one that is answered, on one connection."""


class _CoalescingTransport:
    """A transport that sends together what is written in one turn of the event loop.

    uvicorn writes the head of an answer and its body one after the other, and uvloop sends each at
    once: two packets, two system calls, and a caller who is woken twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return  # the caller has left, which the answer is about to be told; uvloop would raise
        if len(data) > AT_ONCE:
            self._send()
            self._transport.write(data)
            return
        if not self._held:
            self._loop.call_soon(self._send)
        self._held += data

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        data, self._held = self._held, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)


class _Refused(Exception):
    """What comes is not taken, for a reason that the connection keeps."""


TOO_MANY = (429, "Too many requests at once", "wait for answers before you ask for more")
HEAD_TOO_LARGE = (431, "Head too large", f"a head may have at most {MAX_HEAD} bytes")


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's, with bounds on what may come and on time.

    A request must have come in whole within ``timeout`` seconds of its first byte, or of the
    connection; and some of an answer must be taken within each such time.
    """

    def __init__(self, *, timeout: float, max_connections: int, **given: Any) -> None:
        super().__init__(**given)
        self._timeout = timeout
        self._max_connections = max_connections

    # asyncio types the transport as its base class, of which _OneWrite has what uvicorn calls.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio sets it only on sockets of protocol TCP, and the one that workers share is of
        # protocol 0: a lone request would wait 40 ms for the acknowledgement of the one before.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incomplete_since: float | None = time.monotonic()
        self._in_head = True
        self._fields = 0
        """Bytes of the fields that have come of a request, before and behind its body."""
        self._raw = 0
        """All its bytes, but for those that came with its first ones."""
        self._new = 0
        """Bytes that have just come."""
        self._refusal: tuple[int, str, str] | None = None
        self._unsent, self._unsent_since = 0, 0.0
        self._unanswered: deque[RequestResponseCycle] = deque()
        one_write = _CoalescingTransport(transport, self.loop)
        super().connection_made(one_write)  # type: ignore[arg-type]  # as above
        if len(self.connections) > self._max_connections and not self._displace_another():
            detail = f"at most {self._max_connections} connections are served at a time"
            self._refuse(503, "Too many connections", detail)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tells the last request only, which may wait behind the one that is answered.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._incomplete_since is None:
            self._begin()
        self._new = len(data)
        super().data_received(data)
        self._raw += len(data)
        if self._in_head and self._raw > MAX_HEAD:
            self._refuse(*HEAD_TOO_LARGE)
        elif self._raw > MAX_RAW:
            self._refuse(413, "Body too large", f"a request may have at most {MAX_RAW} bytes")

    def on_message_begin(self) -> None:
        self._begin()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(b": \r\n"))
        if self._in_head:  # else it is a trailer: nothing that a head says may come there
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = TOO_MANY
            raise _Refused
        super().on_headers_complete()
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        self._unanswered.append(self.cycle)
        end = functools.partial(self._cut, self.cycle)
        # ASGI lets an extension be anything, uvicorn's types a mapping only.
        self.scope["extensions"] = {ABORT: end}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        self._incomplete_since = None
        self._raw = -self._new
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called for what is no HTTP, and for what a callback above does not take."""
        self._refuse(*(self._refusal or (400, "Malformed request", "this is not HTTP/1.1")))

    def shutdown(self) -> None:
        """Called at the end: close it, or have the answer that is under way be the last one."""
        idle = self.cycle is None or self.cycle.response_complete
        if not (idle and self._has_come()):
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        if not self._has_come():
            super().timeout_keep_alive_handler()

    def look(self, now: float) -> None:
        """End the connection if it has taken too long; called now and then."""
        since = self._incomplete_since
        if since is not None and now > since + self._timeout and not self.flow.read_paused:
            if not self._in_head or self._fields or self._raw:
                detail = f"a request must have come in whole within {self._timeout:g} s"
                self._refuse(RequestTimeout.status, RequestTimeout.title, detail)
            else:
                self.transport.abort()
        # A stream sees for itself that it is taken, and is to be the first that does.
        patience = self._timeout * (1 if self.transport.is_closing() else 2)
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif unsent and now > self._unsent_since + patience:
            self.transport.abort()

    def _has_come(self) -> bool:
        """There is something to read: a request that has come before the end is answered still."""
        if self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _begin(self) -> None:
        """A request begins, or might."""
        self._incomplete_since = time.monotonic()
        self._in_head, self._fields, self._raw = True, 0, -self._new

    def _count(self, size: int) -> None:
        self._fields += size
        if self._fields > MAX_HEAD:
            self._refusal = HEAD_TOO_LARGE
            raise _Refused

    def _displace_another(self) -> bool:
        """End the connection that has been at its request the longest; False if none is at one."""
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

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Answer what is no whole request, and close."""
        answer = problem(status, title, detail)
        metrics.REJECTIONS.labels(answer["type"].removeprefix(KIND)).inc()
        if self._may_answer():
            body = problem_bytes(answer)
            head = STATUS_LINE[status] + b"".join(
                b"%b: %b\r\n" % field for field in self.server_state.default_headers
            )
            own = f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(head + own.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _may_answer(self) -> bool:
        """Nothing else is being answered; should a route still wait for a body, it is told so."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        if cycle.response_started or self.pipeline or self._in_head:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _cut(self, cycle: RequestResponseCycle) -> None:
        """End the connection before its answer is whole, as if the caller had gone."""
        cycle.disconnected = True
        self.transport.close()
