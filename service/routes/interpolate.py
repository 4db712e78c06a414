"""``POST /interpolate``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.formats import negotiation
from service.interpolation import Interpolation
from service.models import Model
from service.routes.answers import about, documented, image_answer, json_answer
from service.routes.direct import DirectRoute, FormatQuery
from service.routes.state import state_of
from service.sampling import Samples
from service.schemas import InterpolateAnswer, InterpolateRequest, Point

router = APIRouter(tags=["generate"], route_class=DirectRoute)
FORMATS = ("json", "png")


@router.post("/interpolate", responses=documented(InterpolateAnswer, FORMATS))
async def interpolate(
    body: InterpolateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Frames from one image to another; as an image, a film strip.

    The default model is the conditional one if an end has a label.
    """
    state = state_of(request)
    chosen = negotiation.choose(request.headers.get("accept", ""), query.format, FORMATS)
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
        return await json_answer(state.engine, head, way, body.steps, request)
    return await image_answer(
        state.engine, head, chosen, way, body.steps, request, columns=body.steps
    )


def _samples(model: Model, point: Point) -> Samples:
    return Samples(
        model=model,
        seed=point.seed,
        offset=point.index,
        choices=[] if point.label is None else [model.vocabulary.parse(point.label)],
        truncation=point.truncation,
    )
