"""Signals before there is anything that would have to end well."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

END = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """Until others hear them, these end the process with status 0: it has accepted nothing."""
    for number in END:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)


@contextmanager
def held() -> Iterator[None]:
    """Signals wait until this is over; in processes started meanwhile, until they ``release``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*END, signal.SIGHUP))
    try:
        yield
    finally:
        release()


def release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*END, signal.SIGHUP))
