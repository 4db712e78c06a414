"""Frames as an HTTP answer in the format that was chosen."""

from __future__ import annotations

import asyncio
import binascii
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.backlog import Timing
from service.engine import Engine
from service.formats import images, npy
from service.formats.negotiation import MEDIA_TYPES
from service.models import Model
from service.sampling import Frame, Pixels, Source
from service.schemas import Problem

log = logging.getLogger(__name__)

PROBLEM = {"application/problem+json": {"schema": Problem.model_json_schema()}}
RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not JSON.", "content": PROBLEM},
    404: {"description": "No such model or version.", "content": PROBLEM},
    406: {"description": "No such format.", "content": PROBLEM},
    413: {"description": "The body is too large.", "content": PROBLEM},
    422: {"description": "A field is out of range, or a label unknown.", "content": PROBLEM},
    429: {"description": "Too many images wait.", "content": PROBLEM, "headers": RETRY_AFTER},
    500: {"description": "The model could not be run.", "content": PROBLEM},
    504: {"description": "Not done in time.", "content": PROBLEM},
}


def documented(answer: type, formats: Sequence[str]) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that gives JSON or images, for the OpenAPI document."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {MEDIA_TYPES[format_]: binary for format_ in formats if format_ != "json"}
    return {200: {"model": answer, "content": content}, **PROBLEMS}


def about(model: Model) -> dict[str, Any]:
    """What every answer says of the model that gave it."""
    return {
        "model": model.name,
        "version": model.version,
        "latent_recipe": model.manifest.latent_recipe,
    }


def as_headers(head: Mapping[str, Any]) -> dict[str, str]:
    """What JSON answers have in their head, for those that have none: ``Figment-Model`` ..."""
    return {f"Figment-{name.replace('_', '-').title()}": str(v) for name, v in head.items()}


def server_timing(timing: Timing) -> dict[str, str]:
    """Milliseconds, as https://www.w3.org/TR/server-timing has it."""
    return {
        "Server-Timing": f"queue;dur={1000 * timing.queue:.2f}, "
        f"inference;dur={1000 * timing.inference:.2f}, encode;dur={1000 * timing.encode:.2f}"
    }


async def json_answer(
    engine: Engine, head: Mapping[str, Any], source: Source, count: int, request: Request
) -> Response:
    """``head`` and the images, each with its PNG in base64."""
    rows, timing = await engine.run(source, count, _json_row, request.receive)
    body = b'%b, "images": [%b]}' % (json.dumps(head)[:-1].encode("ascii"), b", ".join(rows))
    return Response(body, headers=server_timing(timing), media_type=MEDIA_TYPES["json"])


async def image_answer(
    engine: Engine,
    head: Mapping[str, Any],
    extension: str,
    source: Source,
    count: int,
    request: Request,
    columns: int | None = None,
) -> Response:
    """The image if ``count`` is 1, else a contact sheet; ``head`` becomes ``Figment-*`` headers."""
    headers = as_headers(head)
    if count == 1:

        def finish(frame: Frame, pixels: Pixels) -> tuple[bytes, str]:
            assert frame.address is not None
            url = frame.address.url(extension)
            return images.encode(pixels, extension, url), url

        ((content, url),), timing = await engine.run(source, 1, finish, request.receive)
        headers["Content-Location"] = url
    else:
        found, timing = await engine.run(
            source, count, lambda frame, pixels: (frame, pixels), request.receive
        )
        started = time.monotonic()
        content = await asyncio.to_thread(_sheet, found, extension, columns)
        timing.encode += time.monotonic() - started
    headers |= server_timing(timing)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[extension])


class _Stream(StreamingResponse):
    """A stream that is cut where its reader takes nothing for ``timeout`` seconds."""

    timeout: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            async with asyncio.timeout(self.timeout):
                await send(message)

        try:
            await super().__call__(scope, receive, in_time)
        except TimeoutError:
            # To return before all has been sent has the server close the connection.
            log.info("a reader took nothing for %g s: its stream is cut", self.timeout)


async def npy_answer(
    engine: Engine, head: Mapping[str, Any], source: Source, count: int, timeout: float
) -> Response:
    """All pixels as one array ``[count, H, W, channels]``, sent as they are computed.

    A reader that takes nothing for ``timeout`` seconds is given up.
    """
    batches = engine.stream(source, count, lambda frame, pixels: pixels.tobytes())
    first = await anext(batches)  # what is refused is refused before the answer has begun
    manifest = source.model.manifest
    shape = (count, manifest.height, manifest.width, manifest.channels)
    start = npy.header(shape)

    async def body() -> AsyncIterator[bytes]:
        try:
            yield start + b"".join(first)
            async for batch in batches:
                yield b"".join(batch)
        finally:
            await batches.aclose()

    size = len(start) + count * manifest.height * manifest.width * manifest.channels
    headers = as_headers(head) | {"Content-Length": str(size)}
    answer = _Stream(body(), headers=headers, media_type=MEDIA_TYPES["npy"])
    answer.timeout = timeout
    return answer


def _json_row(frame: Frame, pixels: Pixels) -> bytes:
    url = frame.address.url() if frame.address else None
    data = binascii.b2a_base64(images.encode(pixels, "png", url), newline=False)
    # By hand, for json.dumps would look for what to escape in all of the data.
    position = "" if frame.t is None else f', "t": {frame.t}'
    labels = "null" if frame.labels is None else json.dumps(frame.labels)
    place = "null" if url is None else f'"{url}"'  # of characters that JSON takes as they are
    head = f'{{"index": {frame.index}{position}, "labels": {labels}, "url": {place}'
    return b'%b, "data": "%b"}' % (head.encode("ascii"), data)


def _sheet(found: list[tuple[Frame, Pixels]], extension: str, columns: int | None) -> bytes:
    addresses = [frame.address.url(extension) for frame, _ in found if frame.address]
    ends = dict.fromkeys([addresses[0], addresses[-1]])  # one where the two are the same
    sheet = images.contact_sheet([pixels for _, pixels in found], columns)
    return images.encode(sheet, extension, " .. ".join(ends))
