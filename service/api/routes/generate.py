"""``POST /generate`` and ``POST /generate/conditional``."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.dataset_responses import SETS, set_answer
from service.api.fast_path import FastRoute, FormatQuery
from service.api.image_responses import (
    PROBLEM,
    documented,
    image_answer,
    json_answer,
    model_fields,
    run,
    run_search,
)
from service.api.responses import GenerateAnswer
from service.api.state import State, state_of
from service.core.image_request import GenerateRequest
from service.core.latents import MAX_SEED
from service.engine.search import Search
from service.errors import AnswerTooLarge, ModelUnfit
from service.formats import images, negotiation
from service.inference.model import Model
from service.inference.seeds import SeedImages

router = APIRouter(tags=["generate"], route_class=FastRoute)
FORMATS = ("json", *images.EXTENSIONS, *SETS)
ANSWERS = documented(
    GenerateAnswer,
    FORMATS,
    "Figment-Seed",
    "Figment-Tried",
    "Figment-Model-Sha256",
    "Figment-Verifier-Sha256",
    "Figment-Software",
    "Content-Disposition",
    "Content-Location",
) | {503: {"description": "There is no room for a set's temporary files.", "content": PROBLEM}}


@router.post("/generate", responses=ANSWERS)
async def generate(
    body: GenerateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Images of any model.

    The default is the unconditional one, or the conditional one if there is a label.
    """
    state = state_of(request)
    labelled = body.label is not None or body.verify is not None
    model = state.library.choose(body.model, body.version, labelled=labelled)
    return await _answer(model, body, query, state, request)


@router.post("/generate/conditional", responses=ANSWERS)
async def generate_conditional(
    body: GenerateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Images of a conditional model under labels; what a label leaves open is drawn."""
    state = state_of(request)
    library = state.library
    model = library.choose(body.model, body.version, labelled=True)
    if model.manifest.kind != "conditional":
        raise ModelUnfit(
            f"model {model.name!r} is unconditional; use POST /generate, or name one of: "
            f"{', '.join(library.names('conditional'))}",
            models=library.names("conditional"),
        )
    return await _answer(model, body, query, state, request)


async def _answer(
    model: Model, body: GenerateRequest, query: FormatQuery, state: State, request: Request
) -> Response:
    chosen = negotiation.choose(request.headers.get("accept", ""), query.format, FORMATS)
    most = state.settings.max_set if chosen in SETS else state.settings.max_images
    count = body.count
    if count > most:
        raise AnswerTooLarge(
            f"n: {count} images do not fit into one {chosen} answer; at most {most}. Ask for "
            "more with offset",
            max_images=most,
        )
    body.check_fields_agree()
    if body.verify is not None and model.verifier is None:
        able = state.library.verified()
        raise ModelUnfit(
            f"verify: {model.name} version {model.version} has no verifier; "
            f"{', '.join(able) or 'none'} can be verified",
            models=able,
        )
    samples = SeedImages(
        model=model,
        seed=secrets.randbelow(MAX_SEED + 1) if body.seed is None else body.seed,
        indices=range(body.offset, body.offset + count),
        asked=[model.vocabulary.ask(label) for label in body.labels],
        truncation=body.truncation,
    )
    search = None
    if body.may_skip:
        search = Search(body.offset, body.counts)
    head = model_fields(model) | {"seed": samples.seed}
    if chosen in SETS:
        return await set_answer(chosen, head, samples, search, body.verify, state, request)
    if search is None:
        making = run(state, samples, count, request)
    else:
        making = run_search(state, samples, search, body.verify, request)
    if chosen == "json":
        return await json_answer(making, head)
    return await image_answer(making, head, chosen, count)
