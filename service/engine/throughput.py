"""Measured cost of an image, and the throughput that follows from it.

Not thread-safe: the worker pool holds its lock around every call.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_SECONDS = 1e-9
"""Lower bound of a measured time: keeps a throughput finite."""
SMOOTHING = 0.1
"""Weight of a full batch in the moving average; a smaller batch weighs in proportion."""


@dataclass(frozen=True)
class ImageCost:
    """Seconds per image on one thread, averaged over ``images``."""

    compute: float
    encode: float
    images: int = 1

    def with_batch(self, new: ImageCost, largest: int) -> ImageCost:
        """Moving average with a ``new`` batch of a model whose batches have at most ``largest``.

        A plain mean at first, so that the first batches count equally.
        """
        images = self.images + new.images
        weight = max(SMOOTHING * new.images / largest, new.images / images)
        return ImageCost(
            self.compute + weight * (new.compute - self.compute),
            self.encode + weight * (new.encode - self.encode),
            images,
        )


def throughput(cost: ImageCost, threads: int, encoders: int) -> float:
    """Images per second of ``threads`` that compute and ``encoders`` that only encode.

    Without encoders, each thread encodes what it has computed.
    """
    if not encoders:
        return threads / (cost.compute + cost.encode)
    return min(threads / cost.compute, encoders / max(cost.encode, MIN_SECONDS))


class CostTable:
    """Measured cost of an image of each model, by the model's name."""

    def __init__(self) -> None:
        self._by_model: dict[str, ImageCost] = {}
        self._warm_up: ImageCost | None = None
        self.latest: ImageCost | None = None
        """Cost of the model used last; None before the first batch."""

    def record_warm_up(self, seconds: float) -> None:
        """Record the time of the first warm-up: the only estimate before the first batch."""
        self._warm_up = self._warm_up or ImageCost(max(seconds, MIN_SECONDS), 0)

    def record(self, model: str, cost: ImageCost, largest_batch: int) -> None:
        """Record the cost of one batch."""
        known = self._by_model.get(model)
        self.latest = known.with_batch(cost, largest_batch) if known else cost
        self._by_model[model] = self.latest

    @property
    def lowest(self) -> ImageCost | None:
        """Cost of the fastest model; None before the first batch."""
        costs = self._by_model.values()
        return min(costs, key=lambda cost: cost.compute + cost.encode, default=None)

    def of(self, model: str) -> ImageCost | None:
        """Cost of a model; for an unused one, that of the slowest model or of the warm-up."""
        if known := self._by_model.get(model):
            return known
        costs = self._by_model.values()
        return max(costs, key=lambda cost: cost.compute + cost.encode, default=self._warm_up)
