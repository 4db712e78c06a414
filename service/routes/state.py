"""What the routes share: made once by the app, handed to each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from service.catalogue import Catalogue
from service.engine import Engine
from service.library import Library
from service.runtime import Runtime
from service.settings import Settings


@dataclass(frozen=True)
class State:
    settings: Settings
    runtime: Runtime
    catalogue: Catalogue
    engine: Engine
    effective: dict[str, Any]
    """What was chosen at the start (see ``InfoAnswer``)."""
    software: str
    """What of ours may change the bytes of an image, besides its model."""

    @property
    def library(self) -> Library:
        """What is served now. A request asks once: a reload may exchange it any time."""
        return self.catalogue.library


def state_of(request: Request) -> State:
    state: State = request.app.state.figment
    return state


async def _state(request: Request) -> State:
    return state_of(request)  # a coroutine: FastAPI hands plain functions to a thread


CurrentState = Annotated[State, Depends(_state)]
