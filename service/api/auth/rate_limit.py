"""How many images a caller may have per second: the generic cell rate algorithm (GCRA)."""

from __future__ import annotations

import math

from throttled import MemoryStore, RateLimiterType, Throttled
from throttled.rate_limiter import per_sec

from service.errors import RateExceeded


class RateLimiter:
    """Of one caller. After a pause, ``burst`` images may be had at once."""

    def __init__(self, rate: int, burst: int) -> None:
        """Both in images; ``rate`` is for a second."""
        self._rate = rate
        self._burst = burst
        self._limiter = Throttled(
            key="images",
            using=RateLimiterType.GCRA.value,
            quota=per_sec(rate, burst),
            store=MemoryStore(),
        )

    def charge(self, images: int) -> None:
        """Raises ``RateExceeded`` where so many cannot be had now."""
        seconds = self.charge_or_wait(images)
        if seconds > 0:
            wait = math.ceil(seconds)
            raise RateExceeded(
                f"this key may have {self._rate} images a second, and up to {self._burst} at once. "
                f"Try again in {wait} s",
                retry_after=wait,
            )

    def charge_or_wait(self, images: int) -> float:
        """Seconds until so many may be had; 0 if they may now, and then they are."""
        result = self._limiter.limit(cost=images)
        return result.state.retry_after if result.limited else 0
