"""Rate limits in images per second: the generic cell rate algorithm (GCRA).

A ``Client`` is the ``ImageBudget`` that the engine charges for every image it computes.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass

from fastapi import Request
from prometheus_client import Counter
from starlette.types import Scope

from service.errors import RateExceeded
from service.observability import metrics
from service.settings import Settings

MAX_BATCH_IMAGES = 64
"""Largest batch of any model. A smaller burst could never start a stream."""
SCOPE_KEY = "figment.client"
"""Key of the request's ``Client`` in its ASGI scope."""


class RateLimiter:
    """Rate limit of one API key in this process. Used on the event loop only."""

    def __init__(self, rate: int, burst: int) -> None:
        """``rate``: images per second; ``burst``: images at once after a pause."""
        self._rate = rate
        self._burst = burst
        self._arrival = 0.0
        """Time of ``time.monotonic`` at which all charged images would arrive at ``rate``."""

    def charge(self, images: int) -> None:
        """Charge ``images``. Raises ``RateExceeded`` if the limit does not allow them now."""
        seconds = self.charge_or_wait(images)
        if seconds > 0:
            wait = math.ceil(seconds)
            raise RateExceeded(
                f"this key may have {self._rate} images per second, and up to {self._burst} at "
                f"once. Try again in {wait} s",
                retry_after=wait,
            )

    def charge_or_wait(self, images: int) -> float:
        """Charge ``images`` and return 0 if the limit allows them.

        Otherwise charge nothing and return the seconds to wait.
        """
        now = time.monotonic()
        early = max(0.0, self._arrival - now)
        wait = early + (images - self._burst) / self._rate
        if wait > 0:
            return wait
        self._arrival = now + early + images / self._rate
        return 0


def rate_limiter(rate: int | None, settings: Settings) -> RateLimiter | None:
    """Limiter for ``rate`` images per second over all workers; None without a limit.

    Each worker grants its share, and as a burst at least one answer or one batch.
    """
    if rate is None:
        return None
    share = max(1, round(rate / settings.workers))
    return RateLimiter(share, max(share, settings.max_images, MAX_BATCH_IMAGES))


@dataclass(frozen=True)
class Client:
    """Client of a request.

    ``name`` is that of its API key, None without one. ``limiter`` is None without a rate limit.
    """

    name: str | None
    limiter: RateLimiter | None

    def charge(self, images: int) -> None:
        """Charge and count ``images`` before they are computed. Raises ``RateExceeded``."""
        if self.limiter is not None:
            self.limiter.charge(images)
        self._images.inc(images)

    def charge_or_wait(self, images: int) -> float:
        """Charge ``images`` and return 0 if the rate limit allows them.

        Otherwise charge nothing and return the seconds to wait. For batches of a stream.
        """
        seconds = 0.0 if self.limiter is None else self.limiter.charge_or_wait(images)
        if not seconds:
            self._images.inc(images)
        return seconds

    @functools.cached_property
    def _images(self) -> Counter:
        return metrics.KEY_IMAGES.labels(self.name or "none")


def client_of(request: Request) -> Client:
    client: Client = request.scope[SCOPE_KEY]
    return client


def set_client(scope: Scope, client: Client) -> None:
    scope[SCOPE_KEY] = client
