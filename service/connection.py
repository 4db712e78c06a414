"""One HTTP connection, bounded in what it may send and in how long it may take."""

from __future__ import annotations

import asyncio
import functools
import json
import operator
import select
import socket
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service import metrics
from service.errors import KIND, TooSlow, problem
from service.gate import CUT
from service.problems import MEDIA_TYPE

AT_ONCE = 1 << 16
"""Bytes that are sent at once, and not copied together with others."""
MAX_HEAD = 1 << 16
"""Bytes of a request's first line and headers."""


class _OneWrite:
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


class _HeadTooLarge(Exception):
    pass


class Connection(HttpToolsProtocol):
    """uvicorn's, with bounds on the size of a head and on time.

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
        self._head: int | None = 0
        """Bytes that came before of a request's head; None once it is whole."""
        self._new = 0
        """Bytes that have just come."""
        self._too_large = False
        self._unsent, self._unsent_since = 0, 0.0
        self._unanswered: list[RequestResponseCycle] = []
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]
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
        if self._incomplete_since is None:
            self._begin()
        self._new = len(data)
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self._refuse_head()

    def on_message_begin(self) -> None:
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if (self._head or 0) + self._new > MAX_HEAD:  # of which a part may be a body
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD:
                self._too_large = True
                raise _HeadTooLarge
        self._head = None
        super().on_headers_complete()
        self._unanswered = [each for each in self._unanswered if not each.response_complete]
        self._unanswered.append(self.cycle)
        end = functools.partial(self._cut, self.cycle)
        self.scope["extensions"] = {CUT: end}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        self._incomplete_since = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called for what is no HTTP, and for what a callback above does not take."""
        if self._too_large:
            self._refuse_head()
        else:
            self._refuse(400, "Malformed request", "this is not HTTP/1.1")

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
            if self._head != 0:
                detail = f"a request must have come in whole within {self._timeout:g} s"
                self._refuse(TooSlow.status, TooSlow.title, detail)
            else:
                self.transport.abort()
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.transport.is_closing():
            return  # a stream sees for itself that it is taken
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif unsent and now > self._unsent_since + self._timeout:
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
        self._incomplete_since, self._head = time.monotonic(), 0

    def _displace_another(self) -> bool:
        """End the connection that has been at its request the longest; False if none is at one."""
        others = [
            (other._incomplete_since, other)
            for other in self.connections
            if isinstance(other, Connection)
            and other is not self
            and other._incomplete_since is not None
            and not other.transport.is_closing()
        ]
        if others:
            _, oldest = min(others, key=operator.itemgetter(0))
            oldest.transport.abort()
        return bool(others)

    def _refuse_head(self) -> None:
        self._refuse(431, "Head too large", f"a head may have at most {MAX_HEAD} bytes")

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Answer what is no whole request, and close."""
        answer = problem(status, title, detail)
        metrics.REJECTIONS.labels(answer["type"].removeprefix(KIND)).inc()
        if self._may_answer():
            body = json.dumps(answer).encode()
            head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            end = b"connection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head.encode() + end + body)
        self.transport.close()

    def _may_answer(self) -> bool:
        """Nothing else is being answered; should a route still wait for a body, it is told so."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        if cycle.response_started or self.pipeline or self._head is not None:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _cut(self, cycle: RequestResponseCycle) -> None:
        """End the connection before its answer is whole, as if the caller had gone."""
        cycle.disconnected = True
        self.transport.close()
