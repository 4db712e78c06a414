"""The line of those who were told to come back, and when the turn of each is.

HTTP does not tell that a request is made for the second time. Who makes it and what it asks for do:
equal requests of one caller are as good as each other, and have one place.

Nothing here locks or waits: it is used on the event loop only.
"""

from __future__ import annotations

import heapq
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST_KEY: ContextVar[int] = ContextVar("request", default=0)
"""The same for equal requests of one caller."""

GRACE_SECONDS = 2.0
"""Seconds after its time that a place is kept: one is for whole seconds in ``Retry-After``."""
HOLD_SECONDS = 2.0
"""Seconds before its time from which on room is kept for a place."""
MAX_RETRY_AFTER = 10.0
"""Seconds that anyone is told to wait at most: what is further off cannot be known."""
SMOOTHING = 0.02
"""Weight of the newest place in the share of those that are taken up."""
FIRST = 10
"""Places that are thought to have been taken up before there was any."""
MAX_RESERVATIONS = 100_000
"""Places; who comes when there are more is told a time, and has no place at it."""


@dataclass(order=True)
class Reservation:
    due: float
    request: int
    images: int
    left: bool = field(compare=False, default=False)
    """Nobody is expected there any more."""


class RetryReservations:
    """One place for each request. Times are of ``time.monotonic``."""

    def __init__(self) -> None:
        self._places: dict[int, Reservation] = {}
        self._to_come: list[Reservation] = []
        """A heap, as the next."""
        self._soon: list[Reservation] = []
        """Those whose time is near, or has come."""
        self._images = 0
        self._taken_up = 1.0
        self._learnt = FIRST

    @property
    def images(self) -> float:
        """As many as will be asked for again before it is the turn of anyone new.

        Many who are refused never come back: it counts on as many as came of late.
        """
        return self._taken_up * self._images

    def expects(self, now: float) -> bool:
        """Somebody is to come soon, or should have come by now."""
        self._pass(now)
        return bool(self._soon)

    def add(self, request: int, images: int, now: float, wait: float) -> float:
        """Reserve for a request; returns the seconds to wait, at most ``MAX_RETRY_AFTER``.

        Who has one keeps it, and gets no other: to ask more often gives nothing.
        """
        self._pass(now)
        place = self._places.get(request)
        if place is None:
            place = Reservation(now + min(wait, MAX_RETRY_AFTER), request, images)
            if len(self._places) < MAX_RESERVATIONS:
                self._places[request] = place
                self._images += images
                heapq.heappush(self._to_come, place)
        return max(0.0, place.due - now)

    def take(self, request: int, now: float) -> bool:
        """Whether ``request`` was told to come about now; its place is then no more."""
        self._pass(now)
        place = self._places.get(request)
        if place is None or place.due > now:
            return False
        self.leave(request)
        return True

    def leave(self, request: int) -> None:
        """Whoever has the place of a request, if anyone, has come."""
        if request in self._places:
            self._end(self._places[request], taken=True)

    def _pass(self, now: float) -> None:
        """Time passes: the turn of some is near, and others are too late."""
        while self._to_come and self._to_come[0].due <= now + HOLD_SECONDS:
            heapq.heappush(self._soon, heapq.heappop(self._to_come))
        while self._soon and (self._soon[0].left or self._soon[0].due + GRACE_SECONDS <= now):
            place = heapq.heappop(self._soon)
            if not place.left:
                self._end(place, taken=False)

    def _end(self, place: Reservation, *, taken: bool) -> None:
        del self._places[place.request]
        self._images -= place.images
        place.left = True
        self._learnt += 1
        weight = max(SMOOTHING, 1 / self._learnt)
        self._taken_up += weight * (taken - self._taken_up)
