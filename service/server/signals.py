"""Signal handlers of the process: SIGINT and SIGTERM during start-up, SIGHUP to reload."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType

from service.core.process import TERMINATION_SIGNALS


def exit_on_signal() -> None:
    """Exit with status 0 on SIGINT or SIGTERM until the server installs its own handlers.

    No request has been accepted yet.
    """
    for number in TERMINATION_SIGNALS:
        signal.signal(number, _exit)


def ignore_sighup() -> None:
    """Ignore SIGHUP during start-up and at exit, where its default action kills the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def reload_on_sighup(reload: Callable[[], Awaitable[object]]) -> None:
    """Call ``reload`` on the running event loop at SIGHUP; shut down if the terminal was closed.

    Does nothing outside the main thread, where Ray or another host owns the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    # The event loop holds tasks weakly: without these references they could be collected.
    reloads: set[asyncio.Future[object]] = set()

    def on_sighup() -> None:
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            return  # the second of two: the shell sends one, and so does the kernel
        if terminal_is_closed():
            ignore_sighup()
            signal.raise_signal(signal.SIGTERM)
        else:
            reloads.add(task := asyncio.ensure_future(reload()))
            task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_sighup)


def terminal_is_closed() -> bool:
    """True if stderr was a terminal at the start and is none now."""
    return _had_terminal and not _has_terminal()


def _has_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None if started without stderr


_had_terminal = _has_terminal()


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(0)
