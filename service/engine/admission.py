"""Admission control: limits of the queue, and reservations for requests rejected with 429.

A rejected request is admitted first once its Retry-After has passed. HTTP does not mark a retry, so
a request is recognised by its client and content: equal requests of one client share one
reservation.

Not thread-safe, never blocks: used on the event loop only.
"""

from __future__ import annotations

import heapq
import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from service.engine.limits import Limits
from service.errors import QueueFull

REQUEST_KEY: ContextVar[int] = ContextVar("request", default=0)
"""Hash of client and content: equal for equal requests of one client."""

GRACE_SECONDS = 2.0
"""Lifetime of a reservation after its due time; one second is the rounding of ``Retry-After``."""
HOLD_SECONDS = 2.0
"""Time before its due time from which room is kept for a reservation."""
MAX_RETRY_AFTER = 10.0
"""Seconds. Beyond them the load cannot be predicted."""
SMOOTHING = 0.02
"""Weight of the newest reservation in the return rate."""
PRIOR_RESERVATIONS = 10
"""Reservations assumed redeemed before the first: the return rate starts at 1."""
MAX_RESERVATIONS = 100_000
"""Bounds memory. Beyond it, a rejected request gets a Retry-After but no reservation."""


class AdmissionControl:
    """Accepts or rejects requests by the length of the queue and the measured throughput."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._reservations = RetryReservations()

    def admit(self, images: int, *, queued: int, ahead: int, throughput: float | None) -> None:
        """Admit the request of ``REQUEST_KEY``, or raise ``QueueFull``.

        ``queued`` images are queued or running, of which ``ahead`` come first. Rejects if the queue
        is full, or if the images would start later than ``max_wait`` or finish after the deadline.
        An empty queue admits up to its size, whatever the time. While reservations are due, new
        requests may use only half of ``max_wait``.
        """
        now = time.monotonic()
        request = REQUEST_KEY.get()
        reserved = self._reservations.redeem(request, now)
        excess: float = queued + images - self._limits.queue_images
        must_yield = False
        if throughput is not None and queued:
            too_late = queued + images - throughput * self._limits.timeout
            max_ahead = throughput * self._limits.max_wait
            excess = max(excess, too_late, ahead - max_ahead)
            due = not reserved and self._reservations.any_due(now)
            must_yield = due and ahead > max_ahead / 2
        if excess > 0 or must_yield:
            # A client that found no room at its due time waits for no other reservation.
            before = max(excess, 0 if reserved else self._reservations.images)
            seconds = self._retry_after(images, before, throughput, now)
            raise QueueFull(
                f"queue full: {queued} images queued or running, {images} requested; "
                f"retry in {seconds} s",
                retry_after=seconds,
            )
        self._reservations.cancel(request)

    def has_room(self, images: int, *, queued: int, has_more: bool) -> bool:
        """True if an admitted stream may queue ``images`` more.

        A stream that ``has_more`` in the queue leaves half of the queue to others.
        """
        return queued + images <= self._limits.queue_images / (2 if has_more else 1)

    def _retry_after(self, images: int, before: float, throughput: float | None, now: float) -> int:
        """Reserve for ``images`` that come after ``before`` others; return whole seconds to wait.

        Rejected requests get different times: at the same time, most would be rejected again.
        """
        if throughput is None:
            return 1
        wait = max(1, before / throughput)
        return math.ceil(self._reservations.add(REQUEST_KEY.get(), images, now, wait)) or 1


@dataclass(order=True)
class Reservation:
    """Admission of one request, due at a time of ``time.monotonic``."""

    due: float
    request: int
    images: int
    ended: bool = field(compare=False, default=False)
    """Redeemed, cancelled or expired, and still in a heap."""


class RetryReservations:
    """At most one reservation for each request. Times are of ``time.monotonic``."""

    def __init__(self) -> None:
        self._by_request: dict[int, Reservation] = {}
        self._later: list[Reservation] = []
        """Heap of those due in more than ``HOLD_SECONDS``."""
        self._due: list[Reservation] = []
        """Heap of those due soon or already."""
        self._images = 0
        self._return_rate = 1.0
        self._observed = PRIOR_RESERVATIONS

    @property
    def images(self) -> float:
        """Reserved images that clients will probably request again.

        Scaled by the recent return rate, because most rejected clients never retry.
        """
        return self._return_rate * self._images

    def any_due(self, now: float) -> bool:
        """True if a reservation is due soon or already."""
        self._expire(now)
        return bool(self._due)

    def add(self, request: int, images: int, now: float, wait: float) -> float:
        """Reserve for a request; return the seconds to wait, at most ``MAX_RETRY_AFTER``.

        A request holds at most one reservation; retrying early does not add another.
        """
        self._expire(now)
        reservation = self._by_request.get(request)
        if reservation is None:
            reservation = Reservation(now + min(wait, MAX_RETRY_AFTER), request, images)
            if len(self._by_request) < MAX_RESERVATIONS:
                self._by_request[request] = reservation
                self._images += images
                heapq.heappush(self._later, reservation)
        return max(0.0, reservation.due - now)

    def redeem(self, request: int, now: float) -> bool:
        """End the reservation of a request if it is due; return True if it was."""
        self._expire(now)
        reservation = self._by_request.get(request)
        if reservation is None or reservation.due > now:
            return False
        self.cancel(request)
        return True

    def cancel(self, request: int) -> None:
        """End the reservation, if any, of a request that was admitted; it counts as returned."""
        if request in self._by_request:
            self._end(self._by_request[request], returned=True)

    def _expire(self, now: float) -> None:
        """Move reservations that are due soon to ``_due``, and end those past their grace."""
        while self._later and self._later[0].due <= now + HOLD_SECONDS:
            heapq.heappush(self._due, heapq.heappop(self._later))
        while self._due and (self._due[0].ended or self._due[0].due + GRACE_SECONDS <= now):
            reservation = heapq.heappop(self._due)
            if not reservation.ended:
                self._end(reservation, returned=False)

    def _end(self, reservation: Reservation, *, returned: bool) -> None:
        del self._by_request[reservation.request]
        self._images -= reservation.images
        reservation.ended = True
        self._observed += 1
        weight = max(SMOOTHING, 1 / self._observed)
        self._return_rate += weight * (returned - self._return_rate)
