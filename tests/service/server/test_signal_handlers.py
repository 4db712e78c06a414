"""Signal handlers and connections at the moment of shutdown, in this process."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fastapi import FastAPI

from service.api.auth.access import AccessControl
from service.api.middleware.gateway import Gateway
from service.core.process import TERMINATION_SIGNALS
from service.observability import metrics
from service.server.server import Server, configuration
from service.settings import Settings


@pytest.fixture
def keep_handlers() -> Iterator[None]:
    """Restore the signal handlers that a server replaces."""
    handlers = {number: signal.getsignal(number) for number in TERMINATION_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_signal_handler_waits_for_no_lock() -> None:
    """It may interrupt code that holds a metric's lock, which then waits for the handler."""
    settings = Settings()
    gateway = Gateway(FastAPI(), AccessControl(settings), origins=(), log_requests=False)
    server = Server(configuration(gateway, settings), gateway, shutdown_delay=0)
    handler = threading.Thread(target=server.handle_exit, args=(signal.SIGTERM, None), daemon=True)
    with ExitStack() as stack:
        for gauge in (metrics.DRAINING, metrics.CONNECTIONS):
            stack.enter_context(gauge._value._lock)
        handler.start()
        handler.join(5)
        assert not handler.is_alive()
    assert gateway.draining


@pytest.mark.anyio
@pytest.mark.usefixtures("keep_handlers")
@pytest.mark.parametrize("method", ["shutdown", "timeout_keep_alive_handler"])
async def test_unread_request_is_answered_before_its_connection_closes(method: str) -> None:
    """The request is in the socket, and the event loop has not read it."""
    settings = Settings(port=0)
    app = FastAPI()
    app.get("/ask")(lambda: "answer")
    gateway = Gateway(app, AccessControl(settings), origins=(), log_requests=False)
    server = Server(configuration(gateway, settings), gateway, shutdown_delay=0)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for ends in (False, True):
            client.sendall(b"GET /ask HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if ends:
                (connection,) = server.server_state.connections
                gateway.drain()
                getattr(connection, method)()
            answer = await asyncio.to_thread(client.recv, 10_000)
            assert answer.endswith(b'"answer"')
        assert await asyncio.to_thread(client.recv, 1) == b""
    server.should_exit = True
    await serving
    server.exit_timer.cancel()  # it would end this process
