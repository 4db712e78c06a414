"""The HTTP server: uvicorn, which ends well."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import math
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn

from service.api.http_constants import SECURITY_HEADERS
from service.api.middleware.gateway import Gateway
from service.core.process import COMPUTE_THREAD, ENDING
from service.observability import metrics
from service.server.listening import LAST, stop_accepting
from service.server.protocol import BoundedHttpProtocol
from service.settings import Settings

SPARE_FILES = 64
"""File handles for all that is no connection."""
CLOSING = 5.0
"""Seconds, after all that may take time by the settings, until the process ends whatever hangs."""
LOOK = 1.0
"""Seconds between two looks at what connections do."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerContext:
    """What a supervisor shares: the socket to serve on, and where to say that the process lives."""

    socket: socket.socket
    beat: ctypes.c_double
    """To be set to ``time.monotonic``."""


class Server(uvicorn.Server):
    """On SIGTERM or SIGINT it ends well, and with status 0; a second one ends it at once.

    Under a supervisor that is for it alone to say: whoever signals all of a group has each process
    hear of one end twice, from there and from the supervisor.

    Graceful shutdown: ``Gateway.drain``; ``shutdown_delay`` seconds in which new requests are still
    accepted; ``LAST`` for the last connections; then uvicorn's own graceful shutdown.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        gate: Gateway,
        shutdown_delay: float,
        supervised: WorkerContext | None = None,
    ) -> None:
        super().__init__(config)
        self._gate = gate
        self._shutdown_delay = shutdown_delay
        self._drain = config.timeout_graceful_shutdown or 0
        self._supervised = supervised

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn would raise the signal again, and end with its number

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and not self._supervised:
            os._exit(128 + sig)
        self.should_exit = True
        self._gate.drain()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for number in ENDING:  # until now, they ended it at once
            signal.signal(number, self.handle_exit)
        self._watch = asyncio.create_task(self._look())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.bound = threading.Timer(self._shutdown_delay + LAST + self._drain + CLOSING, _give_up)
        self.bound.daemon = True  # it counts on when all here is done, for threads that hang
        self.bound.start()
        metrics.DRAINING.set(1)
        log.info("ending: %d connections are open", len(self.server_state.connections))
        await asyncio.sleep(self._shutdown_delay)
        if not self._supervised:  # else they are shared, and not ours to close
            for listener in [each for server in self.servers for each in server.sockets]:
                stop_accepting(listener.fileno())
        await asyncio.sleep(LAST)
        await super().shutdown(sockets)
        self._watch.cancel()

    async def _look(self) -> None:
        while True:
            now = time.monotonic()
            if self._supervised:
                self._supervised.beat.value = now
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedHttpProtocol):
                    connection.look(now)
            metrics.CONNECTIONS.set(len(self.server_state.connections))
            await asyncio.sleep(LOOK)


def serve(gate: Gateway, settings: Settings, supervised: WorkerContext | None = None) -> None:
    """Serve until told to end, where a supervisor or else ``settings`` say."""
    # A connection is a file handle, and most shells set a low limit that may be raised.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < settings.max_connections + SPARE_FILES:
        log.warning(
            "%d files may be open (ulimit -n), too few for %d connections: some will be reset",
            *(hard, settings.max_connections),
        )
    config = configuration(gate, settings)
    sockets = [supervised.socket] if supervised else None
    Server(config, gate, settings.shutdown_delay, supervised).run(sockets)
    force_exit()


def _give_up() -> None:
    log.error("something does not come to an end; the service ends without it")
    logging.shutdown()
    os._exit(0)


def force_exit() -> None:
    """End at once where a thread is still at a batch: one that is long, or one that hangs.

    The interpreter's end would take the ground from under it, and the runtime then aborts.
    """
    if any(thread.name == COMPUTE_THREAD and thread.is_alive() for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(0)


def configuration(app: Any, settings: Settings) -> uvicorn.Config:
    connection = functools.partial(
        BoundedHttpProtocol, timeout=settings.timeout, max_connections=settings.max_connections
    )
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=connection,  # type: ignore[arg-type]  # which asks for a class, and only calls it
        ws="none",
        access_log=False,
        log_config=None,
        headers=SECURITY_HEADERS,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain),
    )
