"""New connections to a server that is busy with those it has."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from tests.helpers.bare_server import PROGRAM
from tests.helpers.server import Server, serve

pytestmark = pytest.mark.server

REQUEST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
BUSY, NEW = 200, 40


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def test_new_connections_are_answered_while_others_are_busy() -> None:
    """If one were accepted in each turn of the event loop, it would take ``NEW`` rounds."""
    with serve(program=PROGRAM) as server, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(server)) for _ in range(BUSY)]
        answered = 0
        done = threading.Event()

        def keep_busy() -> None:
            nonlocal answered
            while not done.is_set():
                for connection in busy:
                    connection.sendall(REQUEST)
                for connection in busy:
                    connection.recv(1 << 16)
                    answered += 1

        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:
            while answered < BUSY:
                time.sleep(0.01)
            before = answered
            new = [stack.enter_context(connect(server)) for _ in range(NEW)]
            for connection in new:
                connection.sendall(REQUEST)
            for connection in new:
                assert b"200 OK" in connection.recv(1 << 16)
            rounds = (answered - before) / BUSY
        finally:
            done.set()
            thread.join()
    assert rounds < NEW / 4
