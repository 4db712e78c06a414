"""How many replicas the queue of images asks for. Pure: Ray Serve calls it, and is not needed.

Each replica tells its images, its rate and its work. Requests say little: one is for one image,
another for a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

QUEUE = "queue_images"
"""Images that wait or are under way in a replica."""
RATE = "images_per_second"
"""Images per second that it can make; 0 before anything was measured."""
WORK = "asked_per_second"
"""Images per second that it was given to make."""


def desired_replicas(
    queue: float, work: float, rates: Collection[float], *, seconds: float, share: float
) -> int | None:
    """Replicas that hold the queue under so many ``seconds``, and work under ``share`` of the rate.

    queue, work: images, and images per second, of all replicas together.
    rates: images per second that each can make. None if no rate is known yet.
    """
    known = [rate for rate in rates if rate > 0]
    if not known:
        return None
    rate = sum(known) / len(known)
    # A queue alone would have half of the replicas ended that are just keeping up.
    return max(1, math.ceil(max(queue / (rate * seconds), work / (rate * share))))


class Context(Protocol):
    """What this takes of Ray's ``AutoscalingContext``."""

    @property
    def target_num_replicas(self) -> int: ...

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...


class ImageQueuePolicy:
    """An autoscaling policy of Ray Serve, which keeps its bounds and delays around the number."""

    def __init__(self, seconds: float = 0.2, share: float = 0.8) -> None:
        """See ``desired_replicas``.

        ``seconds``: well below FIGMENT_MAX_WAIT, past which requests are refused, not queued.
        """
        self._seconds = seconds
        self._share = share

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        told = context.aggregated_metrics or {}
        queue, work = (sum(told.get(name, {}).values()) for name in (QUEUE, WORK))
        rates = told.get(RATE, {}).values()
        number = desired_replicas(queue, work, rates, seconds=self._seconds, share=self._share)
        return context.target_num_replicas if number is None else number, {}
