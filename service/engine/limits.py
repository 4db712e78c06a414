"""Limits of the queue and its waiting times, and the image budget of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Limits:
    """Limits of an engine. Times are in seconds."""

    queue_images: int
    """Most images queued and running together."""
    max_wait: float
    """Longest estimated time from admission until the first image of a request starts."""
    timeout: float
    """From a request's arrival to its answer; for a stream, for each batch."""
    hang_timeout: float
    """In one batch, after which its worker thread counts as hung."""


class ImageBudget(Protocol):
    """Rate limit of one client, in images."""

    def charge(self, images: int) -> None:
        """Charge ``images``, about to be computed. Raises a ``RequestError`` if over the limit."""
        ...

    def charge_or_wait(self, images: int) -> float:
        """Charge ``images`` and return 0, or charge nothing and return the seconds to wait."""
        ...


class _Unlimited:
    def charge(self, images: int) -> None:
        pass

    def charge_or_wait(self, images: int) -> float:
        return 0


UNLIMITED = _Unlimited()
