"""The HTTP server: uvicorn with graceful shutdown and a heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import uvicorn

from service.api.http_constants import SECURITY_HEADERS
from service.api.middleware.gateway import Gateway
from service.core.process import COMPUTE_THREAD, TERMINATION_SIGNALS
from service.observability import metrics
from service.server import signals
from service.server.protocol import BoundedHttpProtocol
from service.settings import Settings

RESERVED_FILES = 64
"""File descriptors for everything but connections: logs, models, sockets of other libraries."""
ACCEPT_SECONDS = 0.2
"""Time for clients to send the first request over connections that were accepted last."""
FORCE_EXIT_SECONDS = 5.0
"""Added to all configured shutdown times; then the process exits, whatever still runs."""
ACCEPTED_PER_TURN = 16
"""Connections accepted in one iteration of the event loop, which may take 0.2 s under load."""
CHECK_SECONDS = 1.0
"""Interval of timeout checks."""
FAILED_STATUS = os.EX_SOFTWARE
"""Exit status, 70, after a worker thread hung: Docker, systemd and our own parent restart it."""

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Shuts down gracefully on SIGTERM or SIGINT, with status 0; a second signal exits at once.

    A worker process ignores a second signal: it gets the same one from its parent and from whoever
    signals the whole process group. Only the parent reacts to it.

    Graceful shutdown: ``Gateway.drain``; ``shutdown_delay`` seconds in which new requests are still
    accepted; the last connections; ``ACCEPT_SECONDS``; then uvicorn's own graceful shutdown.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Gateway,
        shutdown_delay: float,
        pings: Connection | None = None,
    ) -> None:
        """``pings``: from the parent process, in a worker process; the event loop answers them."""
        super().__init__(config)
        self._gateway = gateway
        self._shutdown_delay = shutdown_delay
        self._drain = config.timeout_graceful_shutdown or 0
        self._pings = pings

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn would raise the signal again and exit with its number

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and not self._pings:
            os._exit(128 + sig)
        self.should_exit = True
        self._gateway.drain()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for number in TERMINATION_SIGNALS:  # until now, they ended the process at once
            signal.signal(number, self.handle_exit)
        self._monitor = asyncio.create_task(self._check_connections())
        if pings := self._pings:
            loop = asyncio.get_running_loop()
            loop.add_reader(pings.fileno(), lambda: pings.send(pings.recv()))

    async def main_loop(self) -> None:
        # Not in startup: a signal between its log line and its handlers would end the process.
        for server in list(self.servers):
            for listener in server.sockets:
                await self._serve_copies(listener.fileno())
        if not self._pings:
            _log_address(self.config.host, self.servers[0].sockets[0].getsockname()[1])
        await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        seconds = self._shutdown_delay + ACCEPT_SECONDS + self._drain + FORCE_EXIT_SECONDS
        status = FAILED_STATUS if self._gateway.failed else 0
        self.exit_timer = threading.Timer(seconds, _exit_hung, (status,))
        # Still runs after this method returns: threads that hang would block the interpreter's end.
        self.exit_timer.daemon = True
        self.exit_timer.start()
        metrics.DRAINING.set(1)
        log.info("shutting down: %d open connections", len(self.server_state.connections))
        await asyncio.sleep(self._shutdown_delay)
        end = time.monotonic() + ACCEPT_SECONDS  # under a flood, the backlog never becomes empty
        while self._has_backlog() and time.monotonic() < end:
            await asyncio.sleep(0)  # the event loop accepts
        for server in self.servers:
            server.close()
        for shared in sockets or []:
            shared.close()
        await asyncio.sleep(ACCEPT_SECONDS)
        await super().shutdown(sockets)
        self._monitor.cancel()

    def _has_backlog(self) -> bool:
        """True if the kernel has connections that are not accepted yet."""
        poll = select.poll()
        for listener in [each for server in self.servers for each in server.sockets]:
            poll.register(listener.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def _serve_copies(self, listener: int) -> None:
        """Serve copies of a listening socket: uvloop accepts one connection a turn from each.

        With one a turn, new clients of a busy server wait in the kernel's backlog for seconds.
        libuv does that on purpose: https://github.com/libuv/libuv/pull/3696
        """
        loop = asyncio.get_running_loop()
        protocol = functools.partial(  # type: ignore[call-arg]  # typed as a plain Protocol
            self.config.http_protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for _ in range(ACCEPTED_PER_TURN - 1):
            copy = socket.socket(fileno=os.dup(listener))
            # Connections inherit it. asyncio sets it only on sockets of protocol TCP, and the
            # socket shared by worker processes has protocol 0. Without it, a small answer may
            # wait 40 ms for the client's ACK.
            copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.servers.append(
                await loop.create_server(protocol, sock=copy, backlog=self.config.backlog)
            )

    async def _check_connections(self) -> None:
        while True:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedHttpProtocol):
                    connection.check_timeouts(now)
            metrics.CONNECTIONS.set(len(self.server_state.connections))
            if self._gateway.failed and not self.should_exit:
                log.error(
                    "shutting down, to be restarted: a worker thread hangs (status %d)",
                    FAILED_STATUS,
                )
                self.should_exit = True
                self._gateway.drain()
            await asyncio.sleep(CHECK_SECONDS)


def serve(
    gateway: Gateway,
    settings: Settings,
    sockets: list[socket.socket] | None = None,
    pings: Connection | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, on ``sockets`` or else as in ``settings``."""
    # A connection is a file descriptor, and the soft limit of most shells is low.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < settings.max_connections + RESERVED_FILES:
        log.warning(
            "limit of %d open files (ulimit -n): too few for %d connections, some will be reset",
            *(hard, settings.max_connections),
        )
    config = configuration(gateway, settings)
    Server(config, gateway, settings.shutdown_delay, pings).run(sockets)
    signals.ignore_sighup()  # the event loop has restored the default, which kills
    if gateway.failed:
        logging.shutdown()
        os._exit(FAILED_STATUS)
    force_exit()


def _log_address(host: str, port: int) -> None:
    """Log the address of the studio, as a browser on this machine takes it."""
    name = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
    log.info("open http://%s:%d in a browser", name, port)


def _exit_hung(status: int) -> None:
    log.error("shutdown timed out: exiting while a thread or a task still runs")
    logging.shutdown()
    os._exit(status)


def force_exit() -> None:
    """Exit at once, with status 0, if a thread still computes a batch; otherwise do nothing.

    The interpreter's own exit frees objects that such a thread uses, and ONNX Runtime then aborts.
    """
    if any(thread.name == COMPUTE_THREAD and thread.is_alive() for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(0)


def configuration(app: Any, settings: Settings) -> uvicorn.Config:
    """uvicorn's configuration for ``settings``."""
    connection = functools.partial(
        BoundedHttpProtocol, timeout=settings.timeout, max_connections=settings.max_connections
    )
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=connection,  # type: ignore[arg-type]  # typed as a class, but uvicorn only calls it
        ws="none",
        access_log=False,
        log_config=None,
        headers=SECURITY_HEADERS,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain),
    )
