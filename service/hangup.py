"""SIGHUP: a reload, unless it comes because the terminal of the service was closed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

_had_terminal = sys.stderr.isatty()


def ignore() -> None:
    """Until there is something to reload, where it would end the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hear(reload: Callable[[], Awaitable[object]]) -> None:
    """From now on, ``reload`` on the running event loop; without the terminal, end instead."""
    under_way: set[asyncio.Future[object]] = set()  # or they might be collected half-way

    def act() -> None:
        if terminal_is_gone():
            signal.raise_signal(signal.SIGTERM)
            return
        task = asyncio.ensure_future(reload())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)


def terminal_is_gone() -> bool:
    return _had_terminal and not sys.stderr.isatty()
