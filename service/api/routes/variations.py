"""``POST /variations``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.fast_path import FastRoute, FormatQuery
from service.api.image_responses import image_answer, json_answer
from service.api.openapi_tables import image_answers
from service.api.points import choose_model, sample
from service.api.render import check_size, run
from service.api.requests import VariationsRequest
from service.api.response_headers import model_fields
from service.api.responses import VariationsAnswer
from service.api.state import state_of
from service.core.latents import draw_seed
from service.formats import images
from service.inference.variations import Variations

router = APIRouter(tags=["generate"], route_class=FastRoute)
FORMATS = ("json", *images.EXTENSIONS)


@router.post(
    "/variations", responses=image_answers(VariationsAnswer, FORMATS, "Figment-Seed", "Figment-Of")
)
async def variations(
    body: VariationsRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Variations of one image.

    The default model is the conditional one if the image has a label.
    """
    state = state_of(request)
    chosen = query.choose(request, FORMATS)
    check_size("n", body.n, state)
    model = choose_model(state.models, body, body.of)
    neighbours = Variations(
        of=sample(model, body.of),
        seed=draw_seed() if body.seed is None else body.seed,
        strength=body.strength,
    )
    address = neighbours.of.address(body.of.index)
    head = model_fields(model) | {"seed": neighbours.seed, "of": address.url()}
    render = run(state, neighbours, body.n, request)
    if chosen == "json":
        return await json_answer(render, head)
    return await image_answer(render, head, chosen, body.n)
