"""Admission control: accepts or rejects images by the length of the queue and the throughput.

Not thread-safe, never blocks: used on the event loop only.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from service.engine.limits import Limits
from service.errors import QueueFull

MAX_RETRY_AFTER = 10
"""Seconds. Beyond them the load cannot be predicted."""


class Load(NamedTuple):
    """State of the queue when a request for images of one model arrives."""

    queued: int
    """Images queued or running."""
    ahead: int
    """Images of ``queued`` that come first."""
    throughput: float | None
    """Images of the model per second; None before the first warm-up."""


class AdmissionControl:
    """Rejects images if the queue is full, or if they would start or finish too late."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def admit(self, images: int, load: Load) -> None:
        """Raise ``QueueFull`` unless a request or stream may queue ``images``.

        An empty queue admits up to its size, whatever the time.
        """
        limits, (queued, ahead, throughput) = self._limits, load
        full = queued + images > limits.queue_images
        if queued and throughput is not None:
            full |= ahead > throughput * limits.max_wait
            full |= queued + images > throughput * limits.timeout
        if full:
            seconds = retry_after(queued, throughput)
            raise QueueFull(
                f"queue full: {queued} images queued or running, {images} requested; "
                f"retry in {seconds} s",
                retry_after=seconds,
            )

    def has_room(self, images: int, *, queued: int, has_more: bool) -> bool:
        """True if an admitted stream may queue ``images`` more.

        A stream that ``has_more`` in the queue leaves half of the queue to others.
        """
        return queued + images <= self._limits.queue_images / (2 if has_more else 1)


def retry_after(queued: int, throughput: float | None) -> int:
    """Seconds in which the queued images are computed, and up to as many again, at random.

    Clients rejected together that retried together would be rejected again.
    """
    work = math.ceil(queued / throughput) if throughput else 1
    work = max(1, min(work, MAX_RETRY_AFTER))
    return min(work + random.randint(0, work), MAX_RETRY_AFTER)
