"""``POST /interpolate``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.fast_path import FastRoute, FormatQuery
from service.api.image_responses import animation_answer, image_answer, json_answer
from service.api.openapi_tables import image_answers
from service.api.points import choose_model, sample
from service.api.render import check_size, run
from service.api.requests import InterpolateRequest
from service.api.response_headers import model_fields
from service.api.responses import InterpolateAnswer
from service.api.state import state_of
from service.inference.interpolation import Interpolation

router = APIRouter(tags=["generate"], route_class=FastRoute)
ANIMATED = ("gif", "webp")
FORMATS = ("json", "png", *ANIMATED)


@router.post("/interpolate", responses=image_answers(InterpolateAnswer, FORMATS))
async def interpolate(
    body: InterpolateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Frames of the interpolation between two images. PNG is a film strip, GIF and WebP animate.

    The default model is the conditional one if an end has a label.
    """
    state = state_of(request)
    chosen = query.choose(request, FORMATS)
    check_size("steps", body.steps, state)
    model = choose_model(state.models, body, body.start, body.end)
    interpolation = Interpolation(
        start=sample(model, body.start),
        end=sample(model, body.end),
        steps=body.steps,
        method=body.method,
        loop=body.loop,
    )
    head = model_fields(model)
    render = run(state, interpolation, body.steps, request)
    if chosen == "json":
        return await json_answer(render, head)
    shape = model.manifest.image_shape
    if chosen in ANIMATED:
        return await animation_answer(render, head, chosen, shape)
    return await image_answer(render, head, chosen, body.steps, shape, columns=body.steps)
