"""``GET /images/...``: one image by its permanent address."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import onnxruntime
import PIL
from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from service import __version__
from service.errors import InvalidRequest
from service.formats import images
from service.formats.negotiation import MEDIA_TYPES
from service.latents import MAX_INDEX, MAX_SEED
from service.models import VERSION_PATTERN, Model
from service.routes.answers import PROBLEMS, about, as_headers, refuse_repeats
from service.routes.state import CurrentState, State
from service.sampling import Samples
from service.schemas import MAX_LABEL, Truncation

router = APIRouter(prefix="/images", tags=["images"], dependencies=[Depends(refuse_repeats)])
FOR_EVER = "public, max-age=31536000, immutable"
NUMBER = "(?:0|[1-9][0-9]{0,15})"
"""One spelling for each number: an address that can be written in two ways is cached twice."""
FILE_PATTERN = rf"^{NUMBER}\.({'|'.join(images.EXTENSIONS)})$"


class _Query(BaseModel):
    """An unknown parameter is refused: a misspelt one would give another image, for ever."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: Annotated[str, Field(max_length=MAX_LABEL)] | None = None
    truncation: Truncation = 1


BINARY: dict[str, Any] = {MEDIA_TYPES[extension]: {} for extension in images.EXTENSIONS}


@router.get(
    "/{model}/{version}/{seed}/{file}",
    response_class=Response,
    responses={
        200: {"content": BINARY},
        304: {"description": "The caller has it already."},
        404: PROBLEMS[404],
        422: PROBLEMS[422],
    },
)
async def show_image(
    model: str,
    version: Annotated[str, Path(pattern=VERSION_PATTERN)],
    seed: Annotated[str, Path(pattern=rf"^{NUMBER}$")],
    file: Annotated[str, Path(pattern=FILE_PATTERN, description="INDEX.png, .webp or .jpeg")],
    state: CurrentState,
    query: Annotated[_Query, Query()],
    if_none_match: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """The same bytes for ever, on one provider: cache it as long as you like."""
    index, _, extension = file.partition(".")
    if int(index) > MAX_INDEX:
        raise InvalidRequest(f"index: may be at most {MAX_INDEX}")
    if int(seed) > MAX_SEED:
        raise InvalidRequest(f"seed: may be at most {MAX_SEED}")
    found = state.library.get(model, int(version))
    samples = Samples(
        model=found,
        seed=int(seed),
        offset=int(index),
        n=1,
        choices=[] if query.label is None else [found.vocabulary.parse(query.label)],
        truncation=query.truncation,
    )
    url = samples.address(int(index)).url(extension)
    head = about(found) | {"seed": seed}
    headers = {"ETag": _etag(found, state, url), "Cache-Control": FOR_EVER} | as_headers(head)
    if _matches(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)

    def work() -> bytes:
        (frame,) = samples.frames(range(1))
        return images.encode(frame.pixels, extension, url)

    return Response(
        await state.engine.call(work), headers=headers, media_type=MEDIA_TYPES[extension]
    )


def _etag(model: Model, state: State, url: str) -> str:
    """Changes with whatever of ours may change the bytes; so no image is made to compare it."""
    parts = (
        model.sha256,
        state.runtime.provider,
        url,
        __version__,
        onnxruntime.__version__,
        PIL.__version__,
    )
    return f'"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"'


def _matches(etag: str, if_none_match: str) -> bool:
    candidates = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return "*" in candidates or etag in candidates
