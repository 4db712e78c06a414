"""Images as one HTTP answer, held in memory whole: JSON, a picture or an animation."""

from __future__ import annotations

import asyncio
import binascii
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import Response
from prometheus_client import Counter

from service.api.render import Render
from service.api.response_headers import as_headers, server_timing
from service.core.image_info import ImageInfo, Pixels
from service.formats import images
from service.formats.registry import MEDIA_TYPES
from service.observability import metrics


async def json_answer(render: Render, head: Mapping[str, Any]) -> Response:
    """Answer with the fields ``head`` and the images, each a PNG in base64."""
    rendered = await render(_json_row)
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
    sheet: Callable[[Sequence[Pixels]], Pixels] = images.contact_sheet,
) -> Response:
    """Answer with the image if ``count`` is 1, else with a ``sheet`` of all.

    The fields ``head`` become headers.
    """
    if count == 1:

        def encode(info: ImageInfo, pixels: Pixels) -> tuple[bytes, str | None]:
            url = info.address.url(extension) if info.address else None
            return images.encode(pixels, extension, url), url

        rendered = await render(encode)
        ((content, url),) = rendered.results
    else:
        rendered = await render(_unencoded)
        started = time.monotonic()
        content = await asyncio.to_thread(_sheet, rendered.results, extension, sheet)
        url = None
        if rendered.timing:
            rendered.timing.encode += time.monotonic() - started
    _count(head, extension, count)
    headers = as_headers(head if rendered.tried is None else {**head, "tried": rendered.tried})
    if url is not None:
        headers["Content-Location"] = url
    if rendered.timing:
        headers |= server_timing(rendered.timing)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[extension])


async def animation_answer(render: Render, head: Mapping[str, Any], extension: str) -> Response:
    """Answer with the images as the frames of an endless animation."""
    rendered = await render(_unencoded)
    _count(head, extension, len(rendered.results))
    content = await asyncio.to_thread(
        images.animation,
        [pixels for _, pixels in rendered.results],
        extension,
        _source([info for info, _ in rendered.results], "png"),
    )
    return Response(content, headers=as_headers(head), media_type=MEDIA_TYPES[extension])


def _count(head: Mapping[str, Any], format_: str, images: int) -> None:
    _counter(head["model"], head["version"], format_).inc(images)


@functools.lru_cache(1024)
def _counter(model: str, version: int, format_: str) -> Counter:
    return metrics.IMAGES_MADE.labels(model, version, format_)


def _unencoded(info: ImageInfo, pixels: Pixels) -> tuple[ImageInfo, Pixels]:
    return info, pixels


def _json_row(info: ImageInfo, pixels: Pixels) -> bytes:
    url = info.address.url() if info.address else None
    data = binascii.b2a_base64(images.encode(pixels, "png", url), newline=False)
    # By hand, as json.dumps would search all of the data for characters to escape.
    position = "" if info.t is None else f', "t": {info.t}'
    labels = "null" if info.labels is None else json.dumps(info.labels)
    address = "null" if url is None else f'"{url}"'  # a URL needs no escapes in JSON
    head = f'{{"index": {info.index}{position}, "labels": {labels}, "url": {address}'
    if info.verified is not None:
        head += f', "verified": {json.dumps(info.verified)}'
    return b'%b, "data": "%b"}' % (head.encode("ascii"), data)


def _sheet(
    found: list[tuple[ImageInfo, Pixels]],
    extension: str,
    sheet: Callable[[Sequence[Pixels]], Pixels],
) -> bytes:
    source = _source([info for info, _ in found], extension)
    return images.encode(sheet([pixels for _, pixels in found]), extension, source)


def _source(infos: Sequence[ImageInfo], extension: str) -> str | None:
    """Addresses of the first and the last image that have one, for the file's metadata."""
    addresses = [info.address.url(extension) for info in infos if info.address]
    return " .. ".join(dict.fromkeys([addresses[0], addresses[-1]])) if addresses else None
