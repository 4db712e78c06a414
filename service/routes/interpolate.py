"""``POST /interpolate``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Response

from service.formats import negotiation
from service.interpolation import Interpolation
from service.models import Model
from service.routes.answers import (
    Accept,
    FormatQuery,
    about,
    documented,
    image_answer,
    json_answer,
    refuse_repeats,
)
from service.routes.state import CurrentState
from service.sampling import Frame, Samples
from service.schemas import InterpolateAnswer, InterpolateRequest, Point

router = APIRouter(tags=["generate"], dependencies=[Depends(refuse_repeats)])
FORMATS = ("json", "png")


@router.post("/interpolate", responses=documented(InterpolateAnswer, FORMATS))
async def interpolate(
    body: InterpolateRequest, state: CurrentState, query: FormatQuery, accept: Accept = ""
) -> Response:
    """Frames from one image to another; as an image, a film strip.

    The default model is the conditional one if an end has a label.
    """
    chosen = negotiation.choose(accept, query.format, FORMATS)
    labelled = body.start.label is not None or body.end.label is not None
    model = state.library.choose(body.model, body.version, labelled=labelled)
    way = Interpolation(
        start=_samples(model, body.start),
        end=_samples(model, body.end),
        steps=body.steps,
        method=body.method,
        loop=body.loop,
    )
    head = about(model)
    if chosen == "json":
        return await json_answer(state.engine, head, body.steps, way.frames, _describe)
    return await image_answer(
        state.engine, head, chosen, body.steps, way.frames, columns=body.steps
    )


def _samples(model: Model, point: Point) -> Samples:
    return Samples(
        model=model,
        seed=point.seed,
        offset=point.index,
        n=1,
        choices=[] if point.label is None else [model.vocabulary.parse(point.label)],
        truncation=point.truncation,
    )


def _describe(position: int, frame: Frame) -> dict[str, Any]:
    return {
        "index": position,
        "t": frame.t,
        "labels": frame.labels,
        "url": frame.address.url() if frame.address else None,
    }
