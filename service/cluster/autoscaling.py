"""Autoscaling policy: number of replicas from queued images and utilisation. Does not import Ray.

Based on images, not requests: one request may be for one image, another for a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

QUEUE = "queue_images"
"""Metric of a replica: images queued or running."""
RATE = "images_per_second"
"""Metric of a replica: its throughput in images per second; 0 before it is measured."""
WORK = "requested_images_per_second"
"""Metric of a replica: images requested per second."""


def desired_replicas(
    queue: float, work: float, rates: Collection[float], *, seconds: float, share: float
) -> int | None:
    """Replicas that keep the queue below ``seconds`` and utilisation below ``share``.

    ``queue`` (images) and ``work`` (images requested per second) are totals of all replicas;
    ``rates`` are the throughputs of each. Returns None if no throughput is measured yet.
    """
    known = [rate for rate in rates if rate > 0]
    if not known:
        return None
    rate = sum(known) / len(known)
    # The queue alone would stop replicas that are busy but keep up.
    return max(1, math.ceil(max(queue / (rate * seconds), work / (rate * share))))


class Context(Protocol):
    """The attributes used of Ray's ``AutoscalingContext``."""

    @property
    def target_num_replicas(self) -> int: ...

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...


class ImageQueuePolicy:
    """Autoscaling policy for Ray Serve, which applies its own bounds and delays to the result."""

    def __init__(self, seconds: float = 0.2, share: float = 0.8) -> None:
        """Targets of ``desired_replicas``.

        ``seconds`` must be well below FIGMENT_MAX_WAIT: above that, requests are rejected and never
        reach the queue.
        """
        self._seconds = seconds
        self._share = share

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        metrics = context.aggregated_metrics or {}
        queue, work = (sum(metrics.get(name, {}).values()) for name in (QUEUE, WORK))
        rates = metrics.get(RATE, {}).values()
        number = desired_replicas(queue, work, rates, seconds=self._seconds, share=self._share)
        return context.target_num_replicas if number is None else number, {}
