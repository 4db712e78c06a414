"""``GET /healthz``, ``GET /readyz`` and ``GET /info``."""

from __future__ import annotations

from fastapi import APIRouter

from service.errors import NotReady
from service.routes.answers import PROBLEM
from service.routes.state import CurrentState
from service.schemas import AliveAnswer, InfoAnswer, ReadyAnswer

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> AliveAnswer:
    """The process answers."""
    return AliveAnswer(status="alive")


@router.get("/readyz", responses={503: {"description": "Not now.", "content": PROBLEM}})
async def ready(state: CurrentState) -> ReadyAnswer:
    """Models are loaded and warmed, and a thread that computes has lately said that it lives."""
    if not state.engine.ready:
        raise NotReady("no thread that computes images has said lately that it lives")
    return ReadyAnswer(
        status="ready",
        device=state.runtime.device,
        reason=state.runtime.reason,
        models={name: sorted(versions) for name, versions in state.library.models.items()},
    )


@router.get("/info")
async def info(state: CurrentState) -> InfoAnswer:
    """What is in effect, whatever was asked for, and how busy it is."""
    return InfoAnswer(
        **state.effective,
        batches=state.library.batches(),
        admitted_images=state.engine.admitted,
        images_per_second=round(rate, 1) if (rate := state.engine.rate) else None,
        settings=state.settings.model_dump(mode="json"),
    )
