"""Stopping between two steps rather than in the middle of one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """``signal`` is set by the first SIGINT or SIGTERM; a second one ends the process at once."""

    signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        sys.stderr.write("\nstopping after this step; once more to stop at once\n")


@contextmanager
def watch() -> Iterator[Interrupt]:
    interrupt = Interrupt()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
