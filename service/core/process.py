"""Small tools for processes, their threads and their signals."""

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
    """Signals wait until this is over; in processes started meanwhile, until they unblock them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, signal.SIGHUP))
    try:
        yield
    finally:
        unblock_signals()


def unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ENDING, signal.SIGHUP))


def end_with_parent(last: Callable[[], object] = lambda: os._exit(1)) -> None:
    """Wait for the end of the parent process, then call ``last``: run it in a thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    last()
