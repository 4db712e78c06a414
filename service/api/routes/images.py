"""``GET /images/...``: one image by its permanent address."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from service.api.caching import CACHING, Canonical, cache_headers, is_current
from service.api.fast_path import reject_repeats
from service.api.image_responses import image_answer
from service.api.openapi_tables import PROBLEMS, described
from service.api.render import run
from service.api.response_headers import as_headers, model_fields
from service.api.state import CurrentState
from service.core.image_request import MAX_LABEL_CHARACTERS, Index, Seed, Truncation, VersionNumber
from service.formats import images
from service.formats.registry import MEDIA_TYPES
from service.inference.seeds import SeedImages

router = APIRouter(prefix="/images", tags=["images"])


class _Query(BaseModel):
    """Query of an address.

    Unknown parameters are rejected, as a misspelt one would give another image for ever.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)] | SkipJsonSchema[None] = None
    truncation: Truncation = 1


BINARY: dict[str, Any] = {MEDIA_TYPES[extension]: {} for extension in images.EXTENSIONS}


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
    caching = cache_headers(state, found.sha256, url)
    if is_current(request, caching):
        return Response(status_code=304, headers=caching | as_headers(head))
    render, shape = run(state, samples, 1, request), found.manifest.image_shape
    answer = await image_answer(render, head, extension, 1, shape)
    answer.headers.update(caching)
    return answer
