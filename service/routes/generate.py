"""``POST /generate`` and ``POST /generate/conditional``."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, Depends, Response

from service.errors import InvalidRequest
from service.formats import images, negotiation
from service.latents import MAX_INDEX, MAX_SEED
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
from service.routes.state import CurrentState, State
from service.sampling import Frame, Samples
from service.schemas import GenerateAnswer, GenerateRequest

router = APIRouter(tags=["generate"], dependencies=[Depends(refuse_repeats)])
FORMATS = ("json", *images.EXTENSIONS)


@router.post("/generate", responses=documented(GenerateAnswer, FORMATS))
async def generate(
    body: GenerateRequest, state: CurrentState, query: FormatQuery, accept: Accept = ""
) -> Response:
    """Images of any model.

    The default is the unconditional one, or the conditional one if there is a label.
    """
    labelled = body.label is not None
    model = state.library.choose(body.model, body.version, labelled=labelled)
    return await _answer(model, body, state, accept, query.format)


@router.post("/generate/conditional", responses=documented(GenerateAnswer, FORMATS))
async def generate_conditional(
    body: GenerateRequest, state: CurrentState, query: FormatQuery, accept: Accept = ""
) -> Response:
    """Images of a conditional model under labels; what a label leaves open is drawn."""
    model = state.library.choose(body.model, body.version, labelled=True)
    if model.manifest.kind != "conditional":
        raise InvalidRequest(
            f"model {model.name!r} is unconditional; use POST /generate, or name one of: "
            f"{', '.join(state.library.names('conditional'))}",
            models=state.library.names("conditional"),
        )
    return await _answer(model, body, state, accept, query.format)


async def _answer(
    model: Model, body: GenerateRequest, state: State, accept: str, wanted: str | None
) -> Response:
    chosen = negotiation.choose(accept, wanted, FORMATS)
    if body.n > state.settings.max_images:
        raise InvalidRequest(
            f"n: {body.n} images do not fit into one {chosen} answer; at most "
            f"{state.settings.max_images}. Ask for more with offset",
            max_images=state.settings.max_images,
        )
    if body.offset + body.n - 1 > MAX_INDEX:
        raise InvalidRequest(f"offset: the last index may be at most {MAX_INDEX}")
    labels = body.label if isinstance(body.label, list) else [body.label]
    samples = Samples(
        model=model,
        seed=secrets.randbelow(MAX_SEED + 1) if body.seed is None else body.seed,
        offset=body.offset,
        n=body.n,
        choices=[model.vocabulary.parse(label) for label in labels if label is not None],
        truncation=body.truncation,
    )
    head = about(model) | {"seed": samples.seed}
    if chosen == "json":
        return await json_answer(state.engine, head, body.n, samples.frames, _describe)
    return await image_answer(state.engine, head, chosen, body.n, samples.frames)


def _describe(position: int, frame: Frame) -> dict[str, Any]:
    assert frame.address is not None
    return {"index": frame.address.index, "labels": frame.labels, "url": frame.address.url()}
