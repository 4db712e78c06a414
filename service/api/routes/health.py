"""Liveness and readiness probes, by their own names and by those of the Open Inference Protocol."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.openapi_tables import PROBLEM, Responses
from service.api.paths import LIVE, OIP_LIVE, OIP_READY, READY
from service.api.state import CurrentState, State
from service.errors import NotReady
from service.formats.json_answers import AliveAnswer, ReadyAnswer
from service.formats.oip_schemas import ServerLive, ServerReady

router = APIRouter(tags=["health"])
NOT_READY: Responses = {503: {"description": "The service is not ready.", "content": PROBLEM}}


def check_ready(state: State) -> None:
    """Raise ``NotReady`` if a worker thread hangs, or none has sent a recent heartbeat."""
    if fault := state.engine.fault:
        raise NotReady(fault)


@router.get(LIVE)
async def alive() -> AliveAnswer:
    """The process answers requests."""
    return AliveAnswer(status="alive")


@router.get(READY, responses=NOT_READY)
async def ready(state: CurrentState) -> ReadyAnswer:
    """Models are loaded and warmed up, and a worker thread has sent a recent heartbeat."""
    check_ready(state)
    return ReadyAnswer(
        status="ready",
        device=state.runtime.device,
        reason=state.runtime.reason,
        models={name: sorted(versions) for name, versions in state.models.models.items()},
    )


@router.get(OIP_LIVE)
async def server_live() -> ServerLive:
    """Same as `/healthz`."""
    return ServerLive(live=True)


@router.get(OIP_READY, responses=NOT_READY)
async def server_ready(state: CurrentState) -> ServerReady:
    """Same as `/readyz`."""
    check_ready(state)
    return ServerReady(ready=True)
