"""Many callers at once, each asking again as soon as it is answered, and what of it failed."""

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
    """``answers``: how many. ``failed``: all requests but those answered with 200, by what came.

    ``longest``: seconds that a single request took at most, answered or not. One that is not
    answered within ``patience`` seconds has failed.
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
        self._over = threading.Event()

    @contextmanager
    def asking(self, connections: int) -> Iterator[Crowd]:
        thread = threading.Thread(target=self._run, args=(connections,))
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _run(self, connections: int) -> None:
        with selectors.DefaultSelector() as selector:
            for _ in range(connections):
                self._join(selector)
            while waiting := selector.get_map():
                for key, _ in selector.select(timeout=1):
                    self._hear(selector, key.data)
                for connection in [key.data for key in waiting.values()]:
                    if time.perf_counter() - connection.asked > self._patience:
                        self._lose(selector, connection, f"no answer in {self._patience:g} s")

    def _join(self, selector: selectors.BaseSelector) -> None:
        """One more caller; none if there is nobody to ask."""
        try:
            connection = Connection(*self._address, self._request)
        except OSError as error:
            self.failed[repr(error)] += 1
            return
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._ask(selector, connection)

    def _ask(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        try:
            connection.ask()
        except OSError as error:
            self._lose(selector, connection, repr(error))

    def _hear(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        try:
            if not connection.receive():
                return
        except (OSError, SystemExit) as error:  # which is what it raises at the end of a connection
            self._lose(selector, connection, repr(error))
            return
        self.answers += 1
        self._took(connection)
        if not connection.ok:
            self.failed[connection.status] += 1
        if self._over.is_set():
            self._close(selector, connection)
        else:
            self._ask(selector, connection)

    def _lose(self, selector: selectors.BaseSelector, connection: Connection, why: str) -> None:
        """Its request has failed; another caller takes its place."""
        self.failed[why] += 1
        self._took(connection)
        self._close(selector, connection)
        if not self._over.is_set():
            self._join(selector)

    def _took(self, connection: Connection) -> None:
        self.longest = max(self.longest, time.perf_counter() - connection.asked)

    def _close(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        selector.unregister(connection.socket)
        connection.socket.close()
