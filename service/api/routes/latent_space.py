"""``POST /interpolate`` and ``POST /variations``: images between two others, or near one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.fast_path import FastRoute, FormatQuery
from service.api.image_responses import animation_answer, image_answer, json_answer
from service.api.openapi_tables import image_answers
from service.api.render import check_size, run
from service.api.response_headers import model_fields
from service.api.state import State, state_of
from service.core.latent_requests import InterpolateRequest, Point, VariationsRequest
from service.core.latents import draw_seed
from service.formats import images
from service.formats.json_answers import InterpolateAnswer, VariationsAnswer
from service.inference.interpolation import Interpolation
from service.inference.model import Model
from service.inference.seeds import SeedImages
from service.inference.variations import Variations

router = APIRouter(tags=["generate"], route_class=FastRoute)
ANIMATED = ("gif", "webp")
FRAME_FORMATS = ("json", "png", *ANIMATED)
VARIATION_FORMATS = ("json", *images.EXTENSIONS)


@router.post("/interpolate", responses=image_answers(InterpolateAnswer, FRAME_FORMATS))
async def interpolate(
    body: InterpolateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Frames of the interpolation between two images. PNG is a film strip, GIF and WebP animate.

    The default model is the conditional one if an end has a label.
    """
    state = state_of(request)
    chosen = query.choose(request, FRAME_FORMATS)
    check_size("steps", body.steps, state)
    model = _choose_model(state, body, body.start, body.end)
    interpolation = Interpolation(
        start=_sample(model, body.start),
        end=_sample(model, body.end),
        steps=body.steps,
        method=body.method,
        loop=body.loop,
    )
    render = run(state, interpolation, body.steps, request)
    head, shape = model_fields(model), model.manifest.image_shape
    if chosen in ANIMATED:
        return await animation_answer(render, head, chosen, shape)
    if chosen == "json":
        return await json_answer(render, head)
    return await image_answer(render, head, chosen, body.steps, shape, columns=body.steps)


@router.post(
    "/variations",
    responses=image_answers(VariationsAnswer, VARIATION_FORMATS, "Figment-Seed", "Figment-Of"),
)
async def variations(
    body: VariationsRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Variations of one image.

    The default model is the conditional one if the image has a label.
    """
    state = state_of(request)
    chosen = query.choose(request, VARIATION_FORMATS)
    check_size("n", body.n, state)
    model = _choose_model(state, body, body.of)
    neighbours = Variations(
        of=_sample(model, body.of),
        seed=draw_seed() if body.seed is None else body.seed,
        strength=body.strength,
    )
    render = run(state, neighbours, body.n, request)
    of = neighbours.of.address(body.of.index).url()
    head = model_fields(model) | {"seed": neighbours.seed, "of": of}
    if chosen == "json":
        return await json_answer(render, head)
    return await image_answer(render, head, chosen, body.n, model.manifest.image_shape)


def _choose_model(
    state: State, body: InterpolateRequest | VariationsRequest, *points: Point
) -> Model:
    """Model of a request; by default the conditional one if a point has a label.

    Raises ``UnknownModel``.
    """
    labelled = any(point.label is not None for point in points)
    return state.models.resolve(body.model, body.version, labelled=labelled)


def _sample(model: Model, point: Point) -> SeedImages:
    """The one image at ``point``. Raises ``InvalidLabel``."""
    return SeedImages(
        model=model,
        seed=point.seed,
        indices=range(point.index, point.index + 1),
        labels=[] if point.label is None else [model.vocabulary.resolve(point.label)],
        truncation=point.truncation,
    )
