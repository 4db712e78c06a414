"""Closed-loop load on a background thread, which counts failures and survives cut connections.

Not a command: ``cluster`` and the tests of the cluster use it.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from benchmarks.closed_loop import Connection


class BackgroundLoad:
    """Clients that send again after each response, or over a new connection after an error.

    A request fails after ``timeout`` seconds.
    """

    def __init__(self, url: str, body: bytes, key: str = "none", timeout: float = 60) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._address = parts.hostname, parts.port
        head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        fields = f"Content-Length: {len(body)}\r\n\r\n"
        self._request = (head + fields).encode() + body
        self._timeout = timeout
        self.responses = 0
        """Number of complete responses with any status."""
        self.longest = 0.0
        """Duration of the slowest request in seconds, failed ones included."""
        self.failed: Counter[str] = Counter()
        """Number of requests without status 200, by status or error."""
        self._stop = threading.Event()

    @contextmanager
    def running(self, connections: int) -> Iterator[BackgroundLoad]:
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
                self._connect(selector)
            while registered := selector.get_map():
                for key, _ in selector.select(timeout=1):
                    self._receive(selector, key.data)
                for connection in [key.data for key in registered.values()]:
                    if time.perf_counter() - connection.sent_at > self._timeout:
                        self._fail(selector, connection, f"no response in {self._timeout:g} s")

    def _connect(self, selector: selectors.BaseSelector) -> None:
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
        self.responses += 1
        self._record_duration(connection)
        if not connection.ok:
            self.failed[connection.status] += 1
        if self._stop.is_set() or connection.last:
            self._close(selector, connection)
            if not self._stop.is_set():
                self._connect(selector)
        else:
            self._send(selector, connection)

    def _fail(self, selector: selectors.BaseSelector, connection: Connection, reason: str) -> None:
        """Count a failed request and replace its connection."""
        self.failed[reason] += 1
        self._record_duration(connection)
        self._close(selector, connection)
        if not self._stop.is_set():
            self._connect(selector)

    def _record_duration(self, connection: Connection) -> None:
        self.longest = max(self.longest, time.perf_counter() - connection.sent_at)

    def _close(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        selector.unregister(connection.socket)
        connection.socket.close()
