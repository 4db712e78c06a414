"""``POST /detect``: whether an image file was made here, by its mark and by making it again."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.api.body import read_body, reject_encoded_body
from service.api.openapi_tables import PROBLEMS
from service.api.render import run
from service.api.state import CurrentState, State
from service.core.address import Address
from service.core.image_info import ImageInfo, Pixels
from service.core.image_request import ImageRequest
from service.errors import InvalidRequest, RequestError
from service.formats import marks
from service.inference.seeds import SeedImages

router = APIRouter(tags=["images"])
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_MEAN_DIFFERENCE = 16.0
"""Copies of 64 faces as JPEG (quality 30) and at half the size differ by at most 13 on average from
the image at their address, and two different faces by 22 or more."""
NO_PROOF = "No mark was found, which does not prove that the image is not synthetic."


class DetectAnswer(BaseModel):
    synthetic: bool = Field(description="True if the image has a mark. False proves nothing.")
    by: Literal["pixels", "metadata"] | None = Field(
        description="`pixels`: the image at the address was made again, and it is this one or a "
        "copy of it. `metadata`: only the mark says so."
    )
    address: str | None = Field(
        description="Address in the mark; of a sheet or an animation, that of its first image."
    )
    max_difference: int | None = Field(
        description="Largest difference to the image at the address, 0 to 255; 0 if all pixels "
        "are equal. Null if it was not made again."
    )
    mean_difference: float | None = Field(
        description="Mean difference, 0 to 255. A copy as JPEG or in another size has a small one."
    )
    detail: str


FILE: dict[str, Any] = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        **{f"image/{name}": {"schema": FILE} for name in ("png", "webp", "jpeg", "gif")},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"image": FILE}, "required": ["image"]}
        },
    },
}


@router.post(
    "/detect",
    openapi_extra={"requestBody": BODY},
    responses={status: PROBLEMS[status] for status in (401, 408, 413, 422, 429, 500, 503, 504)},
)
async def detect(state: CurrentState, request: Request) -> DetectAnswer:
    """Look for the mark of a synthetic image, make the image at its address again, and compare.

    No mark is no proof that an image is not synthetic: marks can be removed.
    """
    content = await _image(request)
    mark = await asyncio.to_thread(marks.read, content)
    if mark is None:
        return _answer(None, None, detail=NO_PROOF)
    if len(mark.addresses) != 1:
        first = mark.addresses[0] if mark.addresses else None
        return _answer("metadata", first, detail="The mark is not that of a single image.")
    (address,) = mark.addresses
    try:
        samples, index = _samples(address, state)
    except ValueError:
        return _answer("metadata", address, detail="The mark's address is invalid.")
    except RequestError as error:
        return _answer("metadata", address, detail=f"It cannot be made again: {error}")

    def compare(info: ImageInfo, pixels: Pixels) -> tuple[int, float]:
        return marks.difference(content, pixels)

    rendered = await run(state, samples, 1, request)(compare, None)
    ((largest, mean),) = rendered.results
    url = samples.address(index).url(address.partition("?")[0].rpartition(".")[2])
    if largest == 0:
        return _answer("pixels", url, 0, 0.0, "It is the image at this address.")
    if mean <= MAX_MEAN_DIFFERENCE:
        return _answer("pixels", url, largest, mean, "It is a copy of the image at this address.")
    return _answer("metadata", url, largest, mean, "It is not the image at this address.")


def _answer(
    by: Literal["pixels", "metadata"] | None,
    address: str | None,
    largest: int | None = None,
    mean: float | None = None,
    detail: str = "",
) -> DetectAnswer:
    return DetectAnswer(
        synthetic=by is not None,
        by=by,
        address=address,
        max_difference=largest,
        mean_difference=None if mean is None else round(mean, 2),
        detail=detail,
    )


def _samples(url: str, state: State) -> tuple[SeedImages, int]:
    """The image at an address. Raises ``ValueError``, and ``RequestError`` for an unknown model."""
    address = Address.parse(url)
    checked = ImageRequest(
        label=address.label,
        seed=address.seed,
        offset=address.index,
        version=address.version,
        truncation=address.truncation,
    )
    model = state.models.get(address.model, address.version)
    samples = SeedImages(
        model=model,
        seed=address.seed,
        indices=range(address.index, address.index + 1),
        labels=[model.vocabulary.resolve(label) for label in checked.labels],
        truncation=address.truncation,
    )
    return samples, address.index


async def _image(request: Request) -> bytes:
    """Image file in the body. Raises ``RequestError``."""
    reject_encoded_body(request.headers)
    content = await read_body(request.scope, request.receive, MAX_BODY_BYTES)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return content

    async def body() -> Any:
        yield content

    try:
        form = await MultiPartParser(request.headers, body(), max_files=1, max_fields=0).parse()
    except (MultiPartException, KeyError) as error:
        raise InvalidRequest(f"the multipart body cannot be read: {error}") from error
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise InvalidRequest("image: the multipart body has no file in the field `image`")
    return await image.read()
