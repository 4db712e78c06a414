"""Concurrent closed-loop clients on a background thread, with counts of failures."""

from __future__ import annotations

import selectors
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from benchmarks.load import Connection


class Crowd:
    """Clients that send again after each response, or over a new connection after an error.

    ``answers`` counts responses, ``failed`` requests without status 200, by status or error.
    ``longest`` is the duration of the slowest request in seconds, failed ones included. A request
    fails after ``patience`` seconds.
    """

    def __init__(self, url: str, body: bytes, key: str = "none", patience: float = 60) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._address = parts.hostname, parts.port
        head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        fields = f"Content-Length: {len(body)}\r\n\r\n"
        self._request = (head + fields).encode() + body
        self._patience = patience
        self.answers = 0
        self.longest = 0.0
        self.failed: Counter[str] = Counter()
        self._stop = threading.Event()

    @contextmanager
    def running(self, connections: int) -> Iterator[Crowd]:
        """Send requests over ``connections`` connections within the context."""
        thread = threading.Thread(target=self._run, args=(connections,))
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _run(self, connections: int) -> None:
        with selectors.DefaultSelector() as selector:
            for _ in range(connections):
                self._join(selector)
            while waiting := selector.get_map():
                for key, _ in selector.select(timeout=1):
                    self._receive(selector, key.data)
                for connection in [key.data for key in waiting.values()]:
                    if time.perf_counter() - connection.sent > self._patience:
                        self._fail(selector, connection, f"no answer in {self._patience:g} s")

    def _join(self, selector: selectors.BaseSelector) -> None:
        """Open one more connection, unless the server refuses it."""
        try:
            connection = Connection(*self._address, self._request)
        except OSError as error:
            self.failed[repr(error)] += 1
            return
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._send(selector, connection)

    def _send(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        try:
            connection.send()
        except OSError as error:
            self._fail(selector, connection, repr(error))

    def _receive(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        try:
            if not connection.receive():
                return
        except (OSError, SystemExit) as error:  # SystemExit: connection closed
            self._fail(selector, connection, repr(error))
            return
        self.answers += 1
        self._record(connection)
        if not connection.ok:
            self.failed[connection.status] += 1
        if self._stop.is_set():
            self._close(selector, connection)
        else:
            self._send(selector, connection)

    def _fail(self, selector: selectors.BaseSelector, connection: Connection, why: str) -> None:
        """Count a failed request and replace its connection."""
        self.failed[why] += 1
        self._record(connection)
        self._close(selector, connection)
        if not self._stop.is_set():
            self._join(selector)

    def _record(self, connection: Connection) -> None:
        self.longest = max(self.longest, time.perf_counter() - connection.sent)

    def _close(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        selector.unregister(connection.socket)
        connection.socket.close()
