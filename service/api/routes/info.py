"""``GET /info`` and ``GET /metrics``: configuration, load and metrics of the service."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from service.api.state import CurrentState
from service.formats.json_answers import InfoAnswer
from service.observability import metrics

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def show_metrics() -> Response:
    """Metrics of all workers, for Prometheus."""
    # With several workers, each one that ended leaves a file; reading 200 takes 0.3 s. Not by
    # asyncio.to_thread: its threads write files of sets, and may all be busy.
    text = await run_in_threadpool(metrics.exposition)
    return Response(text, media_type=metrics.MEDIA_TYPE)


@router.get("/info")
async def info(state: CurrentState) -> InfoAnswer:
    """Configuration in effect, and current load."""
    return InfoAnswer(
        **state.effective,
        batches=state.models.batches(),
        admitted_images=state.engine.queued_images,
        images_per_second=round(rate, 1) if (rate := state.engine.images_per_second) else None,
        settings=state.settings.model_dump(mode="json"),
    )
