"""``GET /sets/...``: a set as a URL, for loaders that take one, and for caches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.caching import CACHING, Canonical, cache_headers, is_current
from service.api.dataset_responses import set_answer, set_headers
from service.api.fast_path import reject_repeats
from service.api.openapi_tables import PROBLEM, PROBLEMS, described
from service.api.response_headers import model_fields
from service.api.state import CurrentState
from service.core.image_request import (
    MAX_LABEL_CHARACTERS,
    MAX_LABELS,
    Index,
    Seed,
    Truncation,
    VersionNumber,
)
from service.datasets.manifest import packing_software
from service.errors import InvalidRequest
from service.formats.registry import MEDIA_TYPES, SUFFIXES
from service.inference.seeds import SeedImages

router = APIRouter(prefix="/sets", tags=["sets"])
FORMATS = {suffix.removeprefix("."): name for name, suffix in SUFFIXES.items()}
"""Formats by the end of the URL."""
BINARY: dict[str, Any] = {MEDIA_TYPES[name]: {} for name in FORMATS.values()}


class _Query(BaseModel):
    """Query of a set. Unknown parameters are rejected."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: Annotated[
        list[Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)]], Field(max_length=MAX_LABELS)
    ] = Field([], description="May repeat: the image at index i takes entry i mod length.")
    truncation: Truncation = 1


@router.get(
    "/{model}/{version}/{seed}/{first}-{last}.{extension}",
    response_class=Response,
    responses={
        200: {
            "content": BINARY,
            "headers": CACHING
            | described("Figment-Seed", "Figment-Model-Sha256", "Figment-Software"),
        },
        304: {"description": "The client has the set already.", "headers": CACHING},
        **{status: PROBLEMS[status] for status in (401, 404, 422, 429, 500, 503, 504)},
        431: {"description": "The URL is too long: it has many labels.", "content": PROBLEM},
    },
)
async def show_set(
    model: str,
    version: Annotated[VersionNumber, Canonical],
    seed: Annotated[Seed, Canonical],
    first: Annotated[Index, Canonical],
    last: Annotated[Index, Canonical],
    extension: Literal["tar", "zip", "parquet", "npy"],
    state: CurrentState,
    query: Annotated[_Query, Query()],
    request: Request,
) -> Response:
    """The images `first` to `last`, included. The bytes are those of `POST /generate`."""
    reject_repeats(request, but=("label",))
    count, limit = last - first + 1, state.settings.max_set
    if count < 1:
        raise InvalidRequest(f"last: {last} is before the first image, {first}")
    if count > limit:
        raise InvalidRequest(
            f"last: {count} images do not fit into one set; at most {limit}",
            kind="Answer too large",
            max_images=limit,
        )
    found = state.models.get(model, version)
    labels = [found.vocabulary.resolve(label) for label in query.label]
    samples = SeedImages(
        model=found,
        seed=seed,
        indices=range(first, last + 1),
        labels=labels,
        truncation=query.truncation,
    )
    phrases = [label.phrase or "" for label in labels]
    identity = (found.sha256, request.url.path, repr(query.truncation), *phrases)
    caching = cache_headers(state, packing_software(), *identity)
    format_ = FORMATS[extension]
    head = model_fields(found) | {"seed": seed}
    if is_current(request, caching):
        return Response(status_code=304, headers=caching)
    if request.scope.get("is_head"):  # without computing anything
        headers = set_headers(format_, head, samples, state)
        return Response(headers=headers | caching, media_type=MEDIA_TYPES[format_])
    answer = await set_answer(format_, head, samples, None, None, state, request)
    answer.headers.update(caching)
    return answer
