"""Standard streams, signals and parents of processes, and names of threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2
"""File descriptor of stderr."""
COMPUTE_THREAD = "compute"
"""Name of the threads that compute images."""


def open_standard_streams() -> None:
    """Open ``/dev/null`` as each of stdin, stdout and stderr that the process was started without.

    Call this before a file or a socket is opened: otherwise it gets the descriptor 0, 1 or 2.
    Libraries would write their messages to it, and libuv aborts the process when it closes it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block SIGINT, SIGTERM and SIGHUP; they are delivered afterwards.

    Processes started within inherit the block and must call ``unblock_signals``.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (*TERMINATION_SIGNALS, signal.SIGHUP))
    try:
        yield
    finally:
        unblock_signals()


def unblock_signals() -> None:
    """Deliver SIGINT, SIGTERM and SIGHUP again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*TERMINATION_SIGNALS, signal.SIGHUP))


def end_with_parent(last: Callable[[], object] = lambda: os._exit(1)) -> None:
    """Wait until the parent process ends, then call ``last``. Run this in a thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    last()


def exit_reason(code: int | None) -> str:
    """Return code of a process in words: ``ended with status 1``, ``was killed by SIGKILL``."""
    if code is None or code >= 0:
        return f"ended with status {code}"
    hint = ", most likely for lack of memory" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{hint}"
