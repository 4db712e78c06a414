"""``GET /images/...``: one image by its permanent address."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from service.api.fast_path import reject_repeats
from service.api.image_responses import image_answer
from service.api.openapi_tables import PROBLEMS, described
from service.api.render import run
from service.api.response_headers import as_headers, model_fields
from service.api.state import CurrentState, State
from service.core.image_request import MAX_LABEL_CHARACTERS, Index, Seed, Truncation, VersionNumber
from service.formats import images
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.inference.seeds import SeedImages

router = APIRouter(prefix="/images", tags=["images"])
CACHES = ("public", "private")
"""Caches that may keep an image: with API keys only private ones, which serve one client."""


def _cache_control(caches: str) -> str:
    return f"{caches}, max-age=31536000, immutable"


def _canonical(text: str) -> str:
    """Reject numbers such as ``007``: a cache would keep one image under two addresses."""
    if not re.fullmatch("0|[1-9][0-9]*", text):
        raise PydanticCustomError("number", "should be a whole number such as 0 or 17")
    return text


Canonical = BeforeValidator(_canonical)


class _Query(BaseModel):
    """Query of an address.

    Unknown parameters are rejected, as a misspelt one would give another image for ever.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)] | SkipJsonSchema[None] = None
    truncation: Truncation = 1


BINARY: dict[str, Any] = {MEDIA_TYPES[extension]: {} for extension in images.EXTENSIONS}
CACHING: dict[str, Any] = {
    "ETag": {"required": True, "schema": {"type": "string"}},
    "Cache-Control": {
        "required": True,
        "schema": {"type": "string", "enum": [*map(_cache_control, CACHES)]},
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
        304: {"description": "The client has the image already.", "headers": CACHING},
        **{status: PROBLEMS[status] for status in (401, 404, 422, 429, 500, 504)},
    },
)
async def show_image(
    model: str,
    version: Annotated[VersionNumber, Canonical],
    seed: Annotated[Seed, Canonical],
    index: Annotated[Index, Canonical],
    extension: images.Extension,
    state: CurrentState,
    query: Annotated[_Query, Query()],
    request: Request,
    if_none_match: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """One image. Its bytes never change on one execution provider, so caches may keep it."""
    reject_repeats(request)
    found = state.models.get(model, version)
    samples = SeedImages(
        model=found,
        seed=seed,
        indices=range(index, index + 1),
        labels=[] if query.label is None else [found.vocabulary.resolve(query.label)],
        truncation=query.truncation,
    )
    url = samples.address(index).url(extension)
    head = model_fields(found) | {"seed": seed}
    caches = CACHES[state.access.requires_key]
    caching = {"ETag": _etag(found, state, url), "Cache-Control": _cache_control(caches)}
    if _matches(caching["ETag"], if_none_match):
        return Response(status_code=304, headers=caching | as_headers(head))
    render, shape = run(state, samples, 1, request), found.manifest.image_shape
    answer = await image_answer(render, head, extension, 1, shape)
    answer.headers.update(caching)
    return answer


def _etag(model: Model, state: State, url: str) -> str:
    """Hash of everything that determines the bytes, so that 304 needs no computation."""
    parts = (model.sha256, state.software, url)
    return f'"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"'


def _matches(etag: str, if_none_match: str) -> bool:
    return etag in if_none_match or if_none_match.strip() == "*"  # an ETag has its quotes
