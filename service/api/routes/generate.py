"""``POST /generate`` and ``POST /generate/conditional``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.dataset_responses import SETS, set_answer
from service.api.fast_path import FastRoute, FormatQuery
from service.api.image_responses import image_answer, json_answer
from service.api.openapi_tables import PROBLEM, image_answers
from service.api.render import check_size, run, run_search
from service.api.response_headers import model_fields
from service.api.state import State, state_of
from service.core.latents import draw_seed
from service.core.set_request import GenerateRequest
from service.engine.search import Search
from service.errors import InvalidRequest
from service.formats import images
from service.formats.json_answers import GenerateAnswer
from service.formats.registry import check_fields, layout_of
from service.inference.model import Model
from service.inference.seeds import SeedImages

router = APIRouter(tags=["generate"], route_class=FastRoute)
FORMATS = ("json", *images.EXTENSIONS, *SETS)
ANSWERS = image_answers(
    GenerateAnswer,
    FORMATS,
    "Figment-Seed",
    "Figment-Tried",
    "Figment-Model-Sha256",
    "Figment-Verifier-Sha256",
    "Figment-Software",
    "Content-Disposition",
    "Content-Location",
) | {503: {"description": "No space for the temporary files of a set.", "content": PROBLEM}}


@router.post("/generate", responses=ANSWERS)
async def generate(
    body: GenerateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Images of any model.

    The default is the unconditional one, or the conditional one if there is a label.
    """
    state = state_of(request)
    labelled = body.label is not None or body.verify is not None
    model = state.models.resolve(body.model, body.version, labelled=labelled)
    return await _answer(model, body, query, state, request)


@router.post("/generate/conditional", responses=ANSWERS)
async def generate_conditional(
    body: GenerateRequest, query: Annotated[FormatQuery, Query()], request: Request
) -> Response:
    """Images of a conditional model. Attributes that a label does not name are drawn."""
    state = state_of(request)
    models = state.models
    model = models.resolve(body.model, body.version, labelled=True)
    if model.manifest.kind != "conditional":
        raise InvalidRequest(
            f"model {model.name!r} is unconditional; use POST /generate, or name one of: "
            f"{', '.join(models.names('conditional'))}",
            kind="Model unfit",
            models=models.names("conditional"),
        )
    return await _answer(model, body, query, state, request)


async def _answer(
    model: Model, body: GenerateRequest, query: FormatQuery, state: State, request: Request
) -> Response:
    chosen = query.choose(request, FORMATS)
    count = body.count
    check_size("n", count, state, chosen)
    body.check_fields_agree()
    check_fields(body, chosen)
    if body.verify is not None and model.verifier is None:
        verifiable = state.models.verified()
        raise InvalidRequest(
            f"verify: {model.name} version {model.version} has no verifier; "
            f"{', '.join(verifiable) or 'none'} can be verified",
            kind="Model unfit",
            models=verifiable,
        )
    samples = SeedImages(
        model=model,
        seed=draw_seed() if body.seed is None else body.seed,
        indices=range(body.offset, body.offset + count),
        labels=[model.vocabulary.resolve(label) for label in body.label_list],
        truncation=body.truncation,
    )
    search = Search(body.offset, body.counts) if body.may_skip else None
    head = model_fields(model) | {"seed": samples.seed}
    if chosen in SETS:
        layout = layout_of(body, chosen, model.manifest.values)
        return await set_answer(chosen, head, samples, search, body.verify, layout, state, request)
    if search is None:
        render = run(state, samples, count, request)
    else:
        render = run_search(state, samples, search, body.verify, request)
    if chosen == "json":
        return await json_answer(render, head)
    return await image_answer(render, head, chosen, count, model.manifest.image_shape)
