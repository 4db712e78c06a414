"""Processes: signal masks, the parent's end, and exit codes in words."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM)
COMPUTE_THREAD = "compute"
"""Name of the threads that compute images."""


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block signals in the block; child processes started in it inherit the mask."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, signal.SIGHUP))
    try:
        yield
    finally:
        unblock_signals()


def unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ENDING, signal.SIGHUP))


def end_with_parent(last: Callable[[], object] = lambda: os._exit(1)) -> None:
    """Wait for the parent process to end, then call ``last``. Blocks: run it in a thread."""
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
