"""Images as one HTTP answer, JSON or a picture, held in memory whole."""

from __future__ import annotations

import asyncio
import binascii
import functools
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fastapi import Request, Response
from prometheus_client import Counter

from service.api.auth.access import client_of
from service.api.state import State
from service.core.image_info import ImageInfo, Pixels
from service.engine.engine import Receive
from service.engine.finder import search_images
from service.engine.queue import Encode
from service.engine.search import Search
from service.errors import AnswerTooLarge, ClientDisconnected, DeadlineExceeded
from service.formats import images
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.inference.seeds import ImageSource, SeedImages
from service.observability import metrics, tracing
from service.observability.timing import Timing

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}, "required": True}
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not JSON.", "content": PROBLEM},
    401: {"description": "There are API keys, and none was sent.", "content": PROBLEM},
    404: {"description": "No such model or version.", "content": PROBLEM},
    406: {"description": "No such format.", "content": PROBLEM},
    408: {"description": "The request took too long to come in.", "content": PROBLEM},
    413: {"description": "The body is too large.", "content": PROBLEM},
    422: {
        "description": "A field is out of range, or a label unknown; or size, model and fields do "
        "not fit together. `type` says which.",
        "content": PROBLEM,
    },
    429: {"description": "Not now; later.", "content": PROBLEM, "headers": RETRY_AFTER},
    500: {"description": "The model could not be run.", "content": PROBLEM},
    503: {"description": "No memory, or no room for temporary files.", "content": PROBLEM},
    504: {"description": "Not done in time.", "content": PROBLEM},
}
HEADERS = {
    "Figment-Model": "The model; this and the next stand in the body of JSON.",
    "Figment-Version": "Its version.",
    "Figment-Latent-Recipe": "How latents follow from seed and index.",
    "Figment-Seed": "The seed, drawn if none was given.",
    "Figment-Tried": "With `verify`: images that were looked at.",
    "Figment-Of": "The address of the image that they surround.",
    "Figment-Model-Sha256": "Of sets: of the model's file.",
    "Figment-Verifier-Sha256": "Of sets, with `verify`: of the verifier's file.",
    "Figment-Software": "Of sets: what of ours may change their bytes.",
    "Content-Disposition": "Of sets: a name for the file.",
    "Content-Location": "Of one image: its address.",
    "Server-Timing": "Where the time went, in milliseconds; not of streams and searches.",
}
OF_EVERY_MODEL = ("Figment-Model", "Figment-Version", "Figment-Latent-Recipe", "Server-Timing")


def documented(
    answer: type, formats: Sequence[str], *headers: str
) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that gives JSON or images, for the OpenAPI document."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {MEDIA_TYPES[format_]: binary for format_ in formats if format_ != "json"}
    given = {"model": answer, "content": content, "headers": described(*headers)}
    return {200: given, **PROBLEMS}


def described(*headers: str) -> dict[str, Any]:
    """``headers`` beside those of every model, for the OpenAPI document."""
    return {
        name: {"description": HEADERS[name], "schema": {"type": "string"}}
        for name in (*OF_EVERY_MODEL, *headers)
    }


def check_size(field: str, count: int, state: State) -> None:
    """Raise ``AnswerTooLarge`` for more images than one answer holds in memory."""
    most = state.settings.max_images
    if count > most:
        raise AnswerTooLarge(
            f"{field}: {count} images do not fit into one answer; at most {most}", max_images=most
        )


def model_fields(model: Model) -> dict[str, Any]:
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


Result = TypeVar("Result")


class RenderedImages(NamedTuple):
    """``results``: what became of each image."""

    results: list[Any]
    timing: Timing | None
    """None where not all that was computed was taken."""
    tried: int | None
    """Images that the verifier looked at, if it did."""


Render = Callable[[Encode], Awaitable[RenderedImages]]
"""Has images computed, and each handed to a function that makes something of it."""


def run(state: State, source: ImageSource, count: int, request: Request) -> Render:
    """The images at ``range(count)`` of ``source``."""

    async def make(finish: Encode) -> RenderedImages:
        started = time.monotonic()
        results, timing = await state.engine.run(
            source, count, finish, request.receive, client_of(request)
        )
        tracing.computed(timing, time.monotonic() - started, count)
        return RenderedImages(results, timing, None)

    return make


def run_search(
    state: State, samples: SeedImages, search: Search, threshold: float | None, request: Request
) -> Render:
    """The images that ``search`` finds."""
    timeout = state.settings.timeout
    tells = threshold is not None

    async def make(finish: Encode) -> RenderedImages:
        batches = search_images(
            state.engine, samples, search, threshold, finish, client_of(request)
        )

        async def collect() -> list[Any]:
            return [result async for batch in batches for result in batch]

        try:
            async with asyncio.timeout(timeout):
                found = await until_disconnect(request.receive, collect())
        except TimeoutError:
            raise DeadlineExceeded(
                f"not done within {timeout:g} s: {search.taken} images were found among "
                f"{search.tried} tried. Ask for fewer, or for a set, which may take longer"
            ) from None
        return RenderedImages(found, None, search.tried if tells else None)

    return make


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """What comes of ``work``, which ends when the caller leaves. Raises ``ClientDisconnected``."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(leave())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnected("the caller has gone")
    finally:
        working.cancel()
        leaving.cancel()
        # Not before both have ended may what they work with be closed.
        await asyncio.gather(working, leaving, return_exceptions=True)


async def json_answer(making: Render, head: Mapping[str, Any]) -> Response:
    """``head`` and the images, each with its PNG in base64."""
    made = await making(_json_row)
    _count(head, "json", len(made.results))
    if made.tried is not None:
        head = {**head, "tried": made.tried}
    body = b'%b, "images": [%b]}' % (
        json.dumps(head)[:-1].encode("ascii"),
        b", ".join(made.results),
    )
    headers = server_timing(made.timing) if made.timing else None
    return Response(body, headers=headers, media_type=MEDIA_TYPES["json"])


async def image_answer(
    making: Render,
    head: Mapping[str, Any],
    extension: str,
    count: int,
    sheet: Callable[[Sequence[Pixels]], Pixels] = images.contact_sheet,
) -> Response:
    """The image if ``count`` is 1, else a ``sheet`` of them; ``head`` becomes headers."""
    if count == 1:

        def finish(frame: ImageInfo, pixels: Pixels) -> tuple[bytes, str | None]:
            url = frame.address.url(extension) if frame.address else None
            return images.encode(pixels, extension, url), url

        made = await making(finish)
        ((content, url),) = made.results
    else:
        made = await making(lambda frame, pixels: (frame, pixels))
        started = time.monotonic()
        content = await asyncio.to_thread(_sheet, made.results, extension, sheet)
        url = None
        if made.timing:
            made.timing.encode += time.monotonic() - started
    _count(head, extension, count)
    headers = as_headers({**head, "tried": made.tried} if made.tried is not None else head)
    if url is not None:
        headers["Content-Location"] = url
    if made.timing:
        headers |= server_timing(made.timing)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[extension])


async def animation_answer(making: Render, head: Mapping[str, Any], extension: str) -> Response:
    """The images one after another, as a film that begins anew at its end."""
    made = await making(lambda frame, pixels: (frame, pixels))
    _count(head, extension, len(made.results))
    content = await asyncio.to_thread(
        images.animation,
        [pixels for _, pixels in made.results],
        extension,
        _ends([frame for frame, _ in made.results], "png"),
    )
    return Response(content, headers=as_headers(head), media_type=MEDIA_TYPES[extension])


def _count(head: Mapping[str, Any], format_: str, images: int) -> None:
    _made(head["model"], head["version"], format_).inc(images)


@functools.lru_cache(1024)
def _made(model: str, version: int, format_: str) -> Counter:
    return metrics.IMAGES_MADE.labels(model, version, format_)


def _json_row(frame: ImageInfo, pixels: Pixels) -> bytes:
    url = frame.address.url() if frame.address else None
    data = binascii.b2a_base64(images.encode(pixels, "png", url), newline=False)
    # By hand, for json.dumps would look for what to escape in all of the data.
    position = "" if frame.t is None else f', "t": {frame.t}'
    labels = "null" if frame.labels is None else json.dumps(frame.labels)
    place = "null" if url is None else f'"{url}"'  # of characters that JSON takes as they are
    head = f'{{"index": {frame.index}{position}, "labels": {labels}, "url": {place}'
    if frame.verified is not None:
        head += f', "verified": {json.dumps(frame.verified)}'
    return b'%b, "data": "%b"}' % (head.encode("ascii"), data)


def _sheet(
    found: list[tuple[ImageInfo, Pixels]],
    extension: str,
    sheet: Callable[[Sequence[Pixels]], Pixels],
) -> bytes:
    ends = _ends([frame for frame, _ in found], extension)
    return images.encode(sheet([pixels for _, pixels in found]), extension, ends)


def _ends(frames: Sequence[ImageInfo], extension: str) -> str | None:
    """The addresses of the first and the last image that have one."""
    addresses = [frame.address.url(extension) for frame in frames if frame.address]
    return " .. ".join(dict.fromkeys([addresses[0], addresses[-1]])) if addresses else None
