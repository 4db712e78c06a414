"""``POST /interpolate``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.fast_path import FastRoute, FormatQuery
from service.api.image_responses import (
    animation_answer,
    check_size,
    documented,
    image_answer,
    json_answer,
    model_fields,
    run,
)
from service.api.points import sample
from service.api.responses import InterpolateAnswer, InterpolateRequest
from service.api.state import state_of
from service.formats import images, negotiation
from service.inference.interpolation import Interpolation

router = APIRouter(tags=["generate"], route_class=FastRoute)
ANIMATED = ("gif", "webp")
FORMATS = ("json", "png", *ANIMATED)


@router.post("/interpolate", responses=documented(InterpolateAnswer, FORMATS))
async def interpolate(
    body: InterpolateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Frames from one image to another; as PNG a film strip, as GIF or WebP a film.

    The default model is the conditional one if an end has a label.
    """
    state = state_of(request)
    chosen = negotiation.choose(request.headers.get("accept", ""), query.format, FORMATS)
    check_size("steps", body.steps, state)
    labelled = body.start.label is not None or body.end.label is not None
    model = state.library.choose(body.model, body.version, labelled=labelled)
    way = Interpolation(
        start=sample(model, body.start),
        end=sample(model, body.end),
        steps=body.steps,
        method=body.method,
        loop=body.loop,
    )
    head = model_fields(model)
    making = run(state, way, body.steps, request)
    if chosen == "json":
        return await json_answer(making, head)
    strip = partial(images.contact_sheet, columns=body.steps)
    if chosen in ANIMATED:
        return await animation_answer(making, head, chosen)
    return await image_answer(making, head, chosen, body.steps, strip)
