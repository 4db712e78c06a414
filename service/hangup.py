"""SIGHUP: a reload, unless it comes because the terminal of the service was closed."""

from __future__ import annotations

import signal
import sys

_had_terminal = sys.stderr.isatty()


def ignore() -> None:
    """Until there is something to reload, where it would end the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def terminal_is_gone() -> bool:
    return _had_terminal and not sys.stderr.isatty()
