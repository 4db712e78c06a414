"""``GET /healthz`` and ``GET /readyz``."""

from __future__ import annotations

from fastapi import APIRouter

from service.routes.state import CurrentState
from service.schemas import AliveAnswer, ReadyAnswer

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> AliveAnswer:
    """The process answers."""
    return AliveAnswer(status="alive")


@router.get("/readyz")
async def ready(state: CurrentState) -> ReadyAnswer:
    """Models are loaded and warmed. The service listens only once they are."""
    return ReadyAnswer(
        status="ready",
        device=state.runtime.device,
        reason=state.runtime.reason,
        models={name: sorted(versions) for name, versions in state.library.models.items()},
    )
