"""``GET /info`` and ``GET /metrics``: what the service says of itself."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from service.api.responses import InfoAnswer
from service.api.state import CurrentState
from service.observability import metrics

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def show_metrics() -> Response:
    """What Prometheus collects; of all workers, whichever of them answers."""
    # With several workers, each that has ended leaves a file: of 200, reading takes 0.3 s. Not by
    # asyncio.to_thread, whose threads are those that encode sheets and films, and may all be busy.
    text = await run_in_threadpool(metrics.exposition)
    return Response(text, media_type=metrics.MEDIA_TYPE)


@router.get("/info")
async def info(state: CurrentState) -> InfoAnswer:
    """What is in effect, whatever was asked for, and how busy it is."""
    return InfoAnswer(
        **state.effective,
        batches=state.library.batches(),
        admitted_images=state.engine.queued_images,
        images_per_second=round(rate, 1) if (rate := state.engine.images_per_second) else None,
        settings=state.settings.model_dump(mode="json"),
    )
