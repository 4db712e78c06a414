"""``POST /variations``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.fast_path import FastRoute, FormatQuery
from service.api.image_responses import (
    check_size,
    documented,
    image_answer,
    json_answer,
    model_fields,
    run,
)
from service.api.points import sample
from service.api.responses import VariationsAnswer, VariationsRequest
from service.api.state import state_of
from service.core.latents import draw_seed
from service.formats import images, negotiation
from service.inference.variations import Variations

router = APIRouter(tags=["generate"], route_class=FastRoute)
FORMATS = ("json", *images.EXTENSIONS)


@router.post(
    "/variations", responses=documented(VariationsAnswer, FORMATS, "Figment-Seed", "Figment-Of")
)
async def variations(
    body: VariationsRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Neighbours of one image.

    The default model is the conditional one if the image has a label.
    """
    state = state_of(request)
    chosen = negotiation.choose(request.headers.get("accept", ""), query.format, FORMATS)
    check_size("n", body.n, state)
    labelled = body.of.label is not None
    model = state.library.choose(body.model, body.version, labelled=labelled)
    around = Variations(
        of=sample(model, body.of),
        seed=draw_seed() if body.seed is None else body.seed,
        strength=body.strength,
    )
    head = model_fields(model) | {"seed": around.seed, "of": around.of.address(body.of.index).url()}
    making = run(state, around, body.n, request)
    if chosen == "json":
        return await json_answer(making, head)
    return await image_answer(making, head, chosen, body.n)
