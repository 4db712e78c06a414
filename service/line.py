"""The line of those who were told to come back, and when the turn of each is.

HTTP does not tell that a request is made for the second time. Who makes it and what it asks for do:
equal requests of one caller are as good as each other, so whichever comes first takes the place of
either. Who asks again before the time takes no place but those of its own.

Nothing here locks or waits: it is used on the event loop only.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST: ContextVar[int] = ContextVar("request", default=0)
"""The same for equal requests of one caller."""

LATE = 2.0
"""Seconds after its time that a place is kept: one is for whole seconds in ``Retry-After``."""
SMOOTHING = 0.02
"""Weight of the newest place in the share of those that are taken up."""
FIRST = 10
"""Places that are thought to have been taken up before there was any."""
MOST = 100_000
"""Places; who comes when there are more is told the end of the line, and has no place in it."""


@dataclass(order=True)
class _Place:
    due: float
    number: int
    request: int = field(compare=False)
    images: int = field(compare=False)
    taken: bool = field(compare=False, default=False)


class Line:
    """Times are of ``time.monotonic``."""

    def __init__(self) -> None:
        self._of: dict[int, list[_Place]] = {}
        """The places of each request that nobody has taken, a heap."""
        self._to_come: list[_Place] = []
        """Those whose turn has not come yet, a heap."""
        self._due: deque[_Place] = deque()
        self._images_to_come = 0
        self._taken_up = 1.0
        self._learnt = FIRST
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        """Somebody is expected."""
        return bool(self._of)

    @property
    def images(self) -> float:
        """As many as will be asked for again before it is the turn of anyone new.

        Many who are refused never come back: it counts on as many as came of late.
        """
        return self._taken_up * self._images_to_come

    def add(self, request: int, images: int, due: float) -> None:
        """A place for a request that is told to come back at ``due``, or up to a second later."""
        if len(self._to_come) + len(self._due) < MOST:
            place = _Place(due, next(self._numbers), request, images)
            heapq.heappush(self._to_come, place)
            heapq.heappush(self._of.setdefault(request, []), place)
            self._images_to_come += images

    def take(self, request: int, now: float) -> bool:
        """Whether ``request`` was told to come about now; its place is then no more."""
        self._pass(now)
        places = self._of.get(request)
        if places is None or places[0].due > now:
            return False
        self._end(places[0], taken=True)
        return True

    def _pass(self, now: float) -> None:
        """Time passes: the turn of some has come, and others are too late."""
        while self._to_come and self._to_come[0].due <= now:
            place = heapq.heappop(self._to_come)
            self._images_to_come -= place.images
            self._due.append(place)
        while self._due and (self._due[0].taken or self._due[0].due + LATE <= now):
            place = self._due.popleft()
            if not place.taken:
                self._end(place, taken=False)

    def _end(self, place: _Place, *, taken: bool) -> None:
        """Of the place of its request that is due first."""
        places = self._of[place.request]
        heapq.heappop(places)
        if not places:
            del self._of[place.request]
        place.taken = taken
        self._learnt += 1
        weight = max(SMOOTHING, 1 / self._learnt)
        self._taken_up += weight * (taken - self._taken_up)
