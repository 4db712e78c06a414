"""The HTTP server: uvicorn, with what a small answer cannot afford left out."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings, to_environment

AT_ONCE = 1 << 16
"""Bytes that are sent at once, and not copied together with others."""


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


class Protocol(HttpToolsProtocol):
    # asyncio types the transport as its base class, of which _OneWrite has what uvicorn calls.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio sets it only on sockets of protocol TCP, and the one that workers share is of
        # protocol 0: a lone request would wait 40 ms for the acknowledgement of the one before.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)


def run(app: ASGIApp | None, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM: ``app``, or without one, several processes with one in each.

    What is under way then has as long as any request has; streams that take longer are cut.
    """
    if app is None:
        to_environment(settings)
    uvicorn.run(
        app or "service.app:create_worker",
        factory=app is None,
        workers=settings.workers,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.timeout),
    )
