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
    """``answers``: times of answers, by ``time.perf_counter``. ``failed``: all but 200, by what."""

    def __init__(self, url: str, body: bytes, key: str = "none") -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._address = parts.hostname, parts.port
        head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        fields = f"Content-Length: {len(body)}\r\n\r\n"
        self._request = (head + fields).encode() + body
        self.answers: list[float] = []
        self.failed: Counter[str] = Counter()
        self._over = threading.Event()

    @property
    def longest_pause(self) -> float:
        """Seconds between two answers, to whomever."""
        return max(b - a for a, b in zip(self.answers, self.answers[1:], strict=False))

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
            while selector.get_map():
                for key, _ in selector.select(timeout=1):
                    self._hear(selector, key.data)

    def _join(self, selector: selectors.BaseSelector) -> None:
        connection = Connection(*self._address, self._request)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.ask()

    def _hear(self, selector: selectors.BaseSelector, connection: Connection) -> None:
        try:
            if not connection.receive():
                return
        except (OSError, SystemExit) as error:  # which is what it raises at the end of a connection
            self.failed[repr(error)] += 1
            selector.unregister(connection.socket)
            connection.socket.close()
            if not self._over.is_set():
                self._join(selector)
            return
        self.answers.append(time.perf_counter())
        if not connection.ok:
            self.failed[connection.status] += 1
        if self._over.is_set():
            selector.unregister(connection.socket)
            connection.socket.close()
        else:
            connection.ask()
