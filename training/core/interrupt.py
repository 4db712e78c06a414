"""SIGINT and SIGTERM stop a run after the current step."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Signal handler: the first signal sets ``is_set``, a second raises ``KeyboardInterrupt``."""

    number: int = signal.SIGTERM
    """Number of the signal received; SIGTERM if only another process received one."""
    is_set = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.number, self.is_set = number, True
        sys.stderr.write("\nstopping after this step; send the signal again to stop at once\n")


@contextmanager
def watch_signals() -> Iterator[Interrupt]:
    """Handle SIGINT and SIGTERM within the context, and restore the old handlers after it."""
    interrupt = Interrupt()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
