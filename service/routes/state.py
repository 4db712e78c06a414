"""What the routes share: made once by the app, handed to each request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from service import metrics
from service.callers import Access
from service.engine import Engine
from service.errors import TooManyStreams
from service.models import Library
from service.runtime import Runtime
from service.settings import Settings


class Streams:
    """Room for so many sets at a time; to enter where there is none raises ``TooManyStreams``."""

    def __init__(self, most: int, timeout: float) -> None:
        self._most = most
        self._under_way = 0
        self._retry_after = math.ceil(timeout)

    def __enter__(self) -> None:
        if self._under_way == self._most:
            raise TooManyStreams(
                f"{self._most} sets are being sent, and no more may be at a time. Try again in "
                f"{self._retry_after} s",
                retry_after=self._retry_after,
            )
        self._count(1)

    def __exit__(self, *_: object) -> None:
        self._count(-1)

    def _count(self, more: int) -> None:
        self._under_way += more
        metrics.STREAMS.set(self._under_way)


@dataclass(frozen=True)
class State:
    settings: Settings
    runtime: Runtime
    library: Library
    engine: Engine
    effective: dict[str, Any]
    """What was chosen at the start (see ``InfoAnswer``)."""
    access: Access
    streams: Streams
    software: str
    """What of ours may change the bytes of an image, besides its model."""


def state_of(request: Request) -> State:
    state: State = request.app.state.figment
    return state


async def _state(request: Request) -> State:
    return state_of(request)  # a coroutine: FastAPI hands plain functions to a thread


CurrentState = Annotated[State, Depends(_state)]
