"""Images as one HTTP answer, held in memory whole: JSON, a picture or an animation."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from prometheus_client import Counter

from service.api.render import Render, RenderedImages
from service.api.response_headers import as_headers, server_timing
from service.core.image_info import ImageInfo, Pixels
from service.formats import animation, images
from service.formats.json_answers import json_row
from service.formats.registry import MEDIA_TYPES
from service.observability import metrics


async def json_answer(render: Render, head: Mapping[str, Any]) -> Response:
    """Answer with the fields ``head`` and the images, each a PNG in base64."""
    rendered = await render(json_row, None)
    _count(head, "json", len(rendered.results))
    if rendered.tried is not None:
        head = {**head, "tried": rendered.tried}
    body = b'%b, "images": [%b]}' % (
        json.dumps(head)[:-1].encode("ascii"),
        b", ".join(rendered.results),
    )
    headers = server_timing(rendered.timing) if rendered.timing else None
    return Response(body, headers=headers, media_type=MEDIA_TYPES["json"])


async def image_answer(
    render: Render,
    head: Mapping[str, Any],
    extension: str,
    count: int,
    shape: Sequence[int],
    columns: int | None = None,
) -> Response:
    """Answer with the image if ``count`` is 1, else with a contact sheet of all.

    The fields ``head`` become headers. ``shape`` is that of an image, ``[H, W, channels]``. Raises
    ``InvalidRequest``.
    """
    if count == 1:

        def encode(info: ImageInfo, pixels: Pixels) -> tuple[bytes, str | None]:
            url = info.address.url(extension) if info.address else None
            return images.encode(pixels, extension, url), url

        rendered = await render(encode, None)
    else:
        images.check_sheet(count, shape, extension, columns)

        def sheet(found: list[tuple[ImageInfo, Pixels]]) -> tuple[bytes, str | None]:
            infos, pixels = zip(*found, strict=True)
            source = _source(infos, extension)
            return images.encode(images.contact_sheet(pixels, columns), extension, source), None

        rendered = await render(_unencoded, sheet)
    ((content, url),) = rendered.results
    answer = _image_response(content, extension, count, head, rendered)
    if url is not None:
        answer.headers["Content-Location"] = url
    return answer


async def animation_answer(
    render: Render, head: Mapping[str, Any], extension: str, shape: Sequence[int]
) -> Response:
    """Answer with the images as the frames of an endless animation."""

    def encode(info: ImageInfo, pixels: Pixels) -> tuple[ImageInfo, bytes]:
        return info, animation.encode_frame(pixels, extension)

    rendered = await render(encode, None)
    infos, frames = zip(*rendered.results, strict=True)
    content = animation.join(frames, shape, extension, _source(infos, "png"))
    return _image_response(content, extension, len(frames), head, rendered)


def _image_response(
    content: bytes, extension: str, count: int, head: Mapping[str, Any], rendered: RenderedImages
) -> Response:
    _count(head, extension, count)
    headers = as_headers(head if rendered.tried is None else {**head, "tried": rendered.tried})
    if rendered.timing:
        headers |= server_timing(rendered.timing)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[extension])


def _count(head: Mapping[str, Any], format_: str, images: int) -> None:
    _counter(head["model"], head["version"], format_).inc(images)


@functools.lru_cache(1024)
def _counter(model: str, version: int, format_: str) -> Counter:
    return metrics.IMAGES_MADE.labels(model, version, format_)


def _unencoded(info: ImageInfo, pixels: Pixels) -> tuple[ImageInfo, Pixels]:
    return info, pixels


def _source(infos: Sequence[ImageInfo], extension: str) -> str | None:
    """Addresses of the first and the last image that have one, for the file's metadata."""
    addresses = [info.address.url(extension) for info in infos if info.address]
    return " .. ".join(dict.fromkeys([addresses[0], addresses[-1]])) if addresses else None
