"""Detection of a client's disconnect, through ASGI's ``receive``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[Any]]
"""ASGI's ``receive``: gives the messages of one request, at last ``http.disconnect``."""


async def wait_for_disconnect(receive: Receive) -> None:
    """Read and drop messages until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
