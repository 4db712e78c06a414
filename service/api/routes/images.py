"""``GET /images/...``: one image by its permanent address."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from service.api.fast_path import refuse_repeats
from service.api.image_responses import (
    PROBLEMS,
    as_headers,
    described,
    image_answer,
    model_fields,
    run,
)
from service.api.state import CurrentState, State
from service.core.image_request import MAX_LABEL_CHARACTERS, Index, Seed, Truncation, VersionNumber
from service.formats import images
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.inference.seeds import SeedImages

router = APIRouter(prefix="/images", tags=["images"])
WHOSE = ("public", "private")
"""Caches that may keep an image: what takes a key is not for one that would give it to all."""


def _caching(whose: str) -> str:
    return f"{whose}, max-age=31536000, immutable"


def _one_spelling(text: str) -> str:
    """An address that can be written in two ways is cached twice."""
    if not re.fullmatch("0|[1-9][0-9]*", text):
        raise PydanticCustomError("number", "should be a whole number such as 0 or 17")
    return text


Spelled = BeforeValidator(_one_spelling)


class _Query(BaseModel):
    """An unknown parameter is refused: a misspelt one would give another image, for ever."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)] | SkipJsonSchema[None] = None
    truncation: Truncation = 1


BINARY: dict[str, Any] = {MEDIA_TYPES[extension]: {} for extension in images.EXTENSIONS}
CACHING: dict[str, Any] = {
    "ETag": {"required": True, "schema": {"type": "string"}},
    "Cache-Control": {
        "required": True,
        "schema": {"type": "string", "enum": [*map(_caching, WHOSE)]},
    },
}


@router.get(
    "/{model}/{version}/{seed}/{index}.{extension}",
    response_class=Response,
    responses={
        200: {
            "content": BINARY,
            "headers": CACHING | described("Figment-Seed", "Content-Location"),
        },
        304: {"description": "The caller has it already.", "headers": CACHING},
        **{status: PROBLEMS[status] for status in (401, 404, 422, 429, 500, 504)},
    },
)
async def show_image(
    model: str,
    version: Annotated[VersionNumber, Spelled],
    seed: Annotated[Seed, Spelled],
    index: Annotated[Index, Spelled],
    extension: images.Extension,
    state: CurrentState,
    query: Annotated[_Query, Query()],
    request: Request,
    if_none_match: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """The same bytes for ever, on one provider: cache it as long as you like."""
    refuse_repeats(request)
    found = state.library.get(model, version)
    samples = SeedImages(
        model=found,
        seed=seed,
        indices=range(index, index + 1),
        asked=[] if query.label is None else [found.vocabulary.ask(query.label)],
        truncation=query.truncation,
    )
    url = samples.address(index).url(extension)
    head = model_fields(found) | {"seed": seed}
    whose = WHOSE[state.access.needs_key]
    caching = {"ETag": _etag(found, state, url), "Cache-Control": _caching(whose)}
    if _matches(caching["ETag"], if_none_match):
        return Response(status_code=304, headers=caching | as_headers(head))
    answer = await image_answer(run(state, samples, 1, request), head, extension, 1)
    answer.headers.update(caching)
    return answer


def _etag(model: Model, state: State, url: str) -> str:
    """Changes with whatever of ours may change the bytes; so no image is made to compare it."""
    parts = (model.sha256, state.software, url)
    return f'"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"'


def _matches(etag: str, if_none_match: str) -> bool:
    candidates = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return "*" in candidates or etag in candidates
