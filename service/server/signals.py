"""Signals before there is anything that would have to end well."""

from __future__ import annotations

import os
import signal
from types import FrameType

from service.core.process import ENDING


def exit_on_signal() -> None:
    """Until others hear them, these end the process with status 0: it has accepted nothing."""
    for number in ENDING:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)
