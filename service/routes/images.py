"""``GET /images/...``: one image by its permanent address."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import onnxruntime
import PIL
from fastapi import APIRouter, Header, Path, Query, Response

from service.errors import InvalidRequest
from service.formats import images
from service.formats.negotiation import MEDIA_TYPES
from service.latents import MAX_INDEX
from service.models import Model
from service.routes.answers import PROBLEMS
from service.routes.state import CurrentState, State
from service.sampling import Samples
from service.schemas import Seed, Version

router = APIRouter(prefix="/images", tags=["images"])
FOR_EVER = "public, max-age=31536000, immutable"
FILE_PATTERN = rf"^[0-9]{{1,16}}\.({'|'.join(images.EXTENSIONS)})$"
BINARY: dict[str, Any] = {MEDIA_TYPES[extension]: {} for extension in images.EXTENSIONS}


@router.head("/{model}/{version}/{seed}/{file}", include_in_schema=False)
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
    version: Version,
    seed: Seed,
    file: Annotated[str, Path(pattern=FILE_PATTERN, description="INDEX.png, .webp or .jpeg")],
    state: CurrentState,
    label: Annotated[str | None, Query(max_length=1000)] = None,
    truncation: Annotated[float, Query(gt=0, le=1, allow_inf_nan=False)] = 1,
    if_none_match: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """The same bytes for ever, on one provider: cache it as long as you like."""
    index, _, extension = file.partition(".")
    if int(index) > MAX_INDEX:
        raise InvalidRequest(f"index: may be at most {MAX_INDEX}")
    found = state.library.get(model, version)
    samples = Samples(
        model=found,
        seed=seed,
        offset=int(index),
        n=1,
        choices=[] if label is None else [found.vocabulary.parse(label)],
        truncation=truncation,
    )
    url = samples.address(int(index)).url(extension)
    headers = {"ETag": _etag(found, state, url), "Cache-Control": FOR_EVER}
    if _matches(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)

    def work() -> bytes:
        (frame,) = samples.frames(range(1))
        return images.encode(frame.pixels, extension, url)

    return Response(
        await state.engine.call(work), headers=headers, media_type=MEDIA_TYPES[extension]
    )


def _etag(model: Model, state: State, url: str) -> str:
    """Changes with all that may change the bytes, so that no image need be made to compare it."""
    parts = (model.sha256, state.runtime.provider, url, onnxruntime.__version__, PIL.__version__)
    return f'"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"'


def _matches(etag: str, if_none_match: str) -> bool:
    candidates = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return "*" in candidates or etag in candidates
