"""``POST /detect``: whether an image file was made here, by its mark and by making it again."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.api.body import read_body, reject_encoded_body
from service.api.disconnect import until_disconnect
from service.api.openapi_tables import PROBLEMS
from service.api.render import run
from service.api.state import CurrentState, State
from service.core.address import Address
from service.core.image_info import ImageInfo, Pixels
from service.core.image_request import ImageRequest
from service.errors import DeadlineExceeded, InvalidRequest, RequestError
from service.formats import detection, marks
from service.formats.detection import DetectAnswer
from service.inference.seeds import SeedImages

router = APIRouter(tags=["images"])
MAX_BODY_BYTES = 2 * 1024 * 1024
"""Pillow takes up to 0.5 s per MiB of empty markers or chunks."""
FORM = "a form must have one file, in the field `image`, and no other field"
FILE = {"type": "string", "format": "binary"}
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
    reading = asyncio.wait_for(marks.read_in_thread(content), state.settings.timeout)
    try:
        addresses, picture = await until_disconnect(request.receive, reading)
    except TimeoutError:
        raise DeadlineExceeded("other images are checked first: try again later") from None
    if addresses is None:
        return detection.unmarked()
    address = addresses[0] if addresses else None
    if address is None or len(addresses) > 1:
        return detection.marked(address, "The mark is not that of a single image.")
    try:
        samples, index = _samples(address, state)
    except ValueError:
        return detection.marked(address, "The mark's address is invalid.")
    except RequestError as error:
        return detection.marked(address, f"It cannot be made again: {error}")
    url = samples.address(index).url(address.partition("?")[0].rpartition(".")[2])

    def compare(info: ImageInfo, pixels: Pixels) -> DetectAnswer:
        return detection.compared(picture, pixels, url)

    rendered = await run(state, samples, 1, request)(compare, None)
    answer: DetectAnswer = rendered.results[0]
    return answer


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
        labels=[model.vocabulary.resolve(label) for label in checked.label_list],
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
        form = await MultiPartParser(request.headers, body(), max_files=1).parse()
    except (MultiPartException, KeyError) as error:
        raise InvalidRequest(f"{FORM}: {error}") from error
    image = form.get("image")
    if len(form.multi_items()) != 1 or not isinstance(image, UploadFile):
        raise InvalidRequest(f"{FORM}: send it as with `curl -F image=@FILE`")
    return await image.read()
