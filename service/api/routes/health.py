"""``GET /healthz`` and ``GET /readyz``, and what the Open Inference Protocol calls them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.api.image_responses import PROBLEM
from service.api.oip.schemas import ServerLive, ServerReady
from service.api.responses import AliveAnswer, ReadyAnswer
from service.api.state import CurrentState, State
from service.errors import NotReady

router = APIRouter(tags=["health"])
NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "Not now.", "content": PROBLEM}}


def check_ready(state: State) -> None:
    """Raise ``NotReady`` unless a thread that computes has lately said that it lives."""
    if not state.engine.ready:
        raise NotReady(
            f"no worker thread has sent a heartbeat within {state.engine.heartbeat_timeout:g} s"
        )


@router.get("/healthz")
async def alive() -> AliveAnswer:
    """The process answers."""
    return AliveAnswer(status="alive")


@router.get("/readyz", responses=NOT_READY)
async def ready(state: CurrentState) -> ReadyAnswer:
    """Models are loaded and warmed, and a thread that computes has lately said that it lives."""
    check_ready(state)
    return ReadyAnswer(
        status="ready",
        device=state.runtime.device,
        reason=state.runtime.reason,
        models={name: sorted(versions) for name, versions in state.library.models.items()},
    )


@router.get("/v2/health/live")
async def server_live() -> ServerLive:
    """As `/healthz`."""
    return ServerLive(live=True)


@router.get("/v2/health/ready", responses=NOT_READY)
async def server_ready(state: CurrentState) -> ServerReady:
    """As `/readyz`."""
    check_ready(state)
    return ServerReady(ready=True)
