"""Stopping between two steps rather than in the middle of one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Set by the first SIGINT or SIGTERM; a second one ends the process at once."""

    number: int = signal.SIGTERM
    """The signal, where there was one; another process of the run may have got it instead."""
    is_set = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.number, self.is_set = number, True
        sys.stderr.write("\nstopping after this step; once more to stop at once\n")


@contextmanager
def watch_signals() -> Iterator[Interrupt]:
    interrupt = Interrupt()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
