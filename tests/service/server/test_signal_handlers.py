"""Signal handlers of the server, in this process."""

from __future__ import annotations

import signal
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
