"""SIGHUP: a reload, unless it comes because the terminal of the service was closed."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType


def _has_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None if it was started without


_had_terminal = _has_terminal()


def ignore() -> None:
    """Until there is something to reload, where it would end the process; and while it ends."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def reload_on_sighup(reload: Callable[[], Awaitable[object]]) -> None:
    """From now on, ``reload`` on the running event loop; without the terminal, end instead.

    On another thread than the main one, signals are for whoever has that, such as Ray.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    under_way: set[asyncio.Future[object]] = set()  # or they might be collected half-way

    def act() -> None:
        task = asyncio.ensure_future(reload())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    def heard(number: int, frame: FrameType | None) -> None:
        if terminal_is_gone():
            ignore()  # the shell sends one, and so does the kernel
            signal.raise_signal(signal.SIGTERM)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(act)

    # Not the loop's own way, which leaves a SIGHUP after the loop is closed to end the process.
    signal.signal(signal.SIGHUP, heard)


def terminal_is_gone() -> bool:
    return _had_terminal and not _has_terminal()
