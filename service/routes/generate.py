"""``POST /generate`` and ``POST /generate/conditional``."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.errors import InvalidRequest
from service.formats import images, negotiation
from service.latents import MAX_INDEX, MAX_SEED
from service.models import Model
from service.routes.answers import about, documented, image_answer, json_answer, npy_answer
from service.routes.direct import DirectRoute, FormatQuery
from service.routes.state import State, state_of
from service.sampling import Samples
from service.schemas import GenerateAnswer, GenerateRequest

router = APIRouter(tags=["generate"], route_class=DirectRoute)
FORMATS = ("json", *images.EXTENSIONS, "npy")
STREAMED = ("npy",)
MAX_STREAM = 10_000_000
"""Images in one stream: what comes after is asked for with ``offset``."""


@router.post("/generate", responses=documented(GenerateAnswer, FORMATS))
async def generate(
    body: GenerateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Images of any model.

    The default is the unconditional one, or the conditional one if there is a label.
    """
    state = state_of(request)
    labelled = body.label is not None
    model = state.library.choose(body.model, body.version, labelled=labelled)
    return await _answer(model, body, query, state, request)


@router.post("/generate/conditional", responses=documented(GenerateAnswer, FORMATS))
async def generate_conditional(
    body: GenerateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Images of a conditional model under labels; what a label leaves open is drawn."""
    state = state_of(request)
    model = state.library.choose(body.model, body.version, labelled=True)
    if model.manifest.kind != "conditional":
        raise InvalidRequest(
            f"model {model.name!r} is unconditional; use POST /generate, or name one of: "
            f"{', '.join(state.library.names('conditional'))}",
            models=state.library.names("conditional"),
        )
    return await _answer(model, body, query, state, request)


async def _answer(
    model: Model, body: GenerateRequest, query: FormatQuery, state: State, request: Request
) -> Response:
    chosen = negotiation.choose(request.headers.get("accept", ""), query.format, FORMATS)
    most = MAX_STREAM if chosen in STREAMED else state.settings.max_images
    if body.n > most:
        raise InvalidRequest(
            f"n: {body.n} images do not fit into one {chosen} answer; at most {most}. Ask for "
            "more with offset",
            max_images=most,
        )
    if body.offset + body.n - 1 > MAX_INDEX:
        raise InvalidRequest(f"offset: the last index may be at most {MAX_INDEX}")
    labels = body.label if isinstance(body.label, list) else [body.label]
    samples = Samples(
        model=model,
        seed=secrets.randbelow(MAX_SEED + 1) if body.seed is None else body.seed,
        offset=body.offset,
        choices=[model.vocabulary.parse(label) for label in labels if label is not None],
        truncation=body.truncation,
    )
    head = about(model) | {"seed": samples.seed}
    if chosen == "json":
        return await json_answer(state.engine, head, samples, body.n, request)
    if chosen == "npy":
        return await npy_answer(state.engine, head, samples, body.n, state.settings.timeout)
    return await image_answer(state.engine, head, chosen, samples, body.n, request)
