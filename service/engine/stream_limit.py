"""Limit on the sets that are streamed at the same time."""

from __future__ import annotations

import math

from service.errors import TooManyStreams
from service.observability import metrics


class StreamLimit:
    """Context manager around each stream. Entering raises ``TooManyStreams`` at the limit."""

    def __init__(self, max_streams: int, timeout: float) -> None:
        """``timeout`` in seconds is the Retry-After of rejected requests."""
        self._max_streams = max_streams
        self._active = 0
        self._retry_after = math.ceil(timeout)

    def __enter__(self) -> None:
        if self._active == self._max_streams:
            raise TooManyStreams(
                f"{self._max_streams} sets are being sent, which is the limit. Try again in "
                f"{self._retry_after} s",
                retry_after=self._retry_after,
            )
        self._add(1)

    def __exit__(self, *_: object) -> None:
        self._add(-1)

    def _add(self, streams: int) -> None:
        self._active += streams
        metrics.STREAMS.set(self._active)
