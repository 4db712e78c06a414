"""Images of one request, computed by the engine and held in memory until all are done."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fastapi import Request

from service.api.auth.rate_limit import client_of
from service.api.disconnect import until_disconnect
from service.api.state import State
from service.core.image_info import ImageInfo, Pixels
from service.engine.queue import Encode
from service.engine.search import Search, search_images
from service.errors import DeadlineExceeded, InvalidRequest
from service.formats.registry import SUFFIXES
from service.inference.seeds import SeedImages
from service.inference.source import ImageSource
from service.observability import tracing
from service.observability.timing import Timing


class RenderedImages(NamedTuple):
    results: list[Any]
    """Return value of ``Encode`` for each image."""
    timing: Timing | None
    """None for a search, which computes more images than it returns."""
    tried: int | None
    """Number of images checked by the verifier; None without ``verify``."""


Combine = Callable[[list[Any]], Any]
"""Makes one result of those of all images, such as a contact sheet."""
Render = Callable[[Encode, Combine | None], Awaitable[RenderedImages]]
"""Computes the images of a request, and encodes each with the given function.

With a ``Combine``, its return value is the only result.
"""


def check_size(field: str, count: int, state: State, format_: str = "json") -> None:
    """Raise ``InvalidRequest`` for more images than one answer may have.

    A set is streamed, and other answers are held in memory.
    """
    limit = state.settings.max_set if format_ in SUFFIXES else state.settings.max_images
    if count > limit:
        raise InvalidRequest(
            f"{field}: {count} images do not fit into one {format_} answer; at most {limit}",
            kind="Answer too large",
            max_images=limit,
        )


def run(state: State, source: ImageSource, count: int, request: Request) -> Render:
    """Render the images at ``range(count)`` of ``source``."""

    async def render(encode: Encode, combine: Combine | None) -> RenderedImages:
        started = time.monotonic()
        if combine is not None:
            encode = _combined(encode, combine, count)
        results, timing = await state.engine.run(
            source, count, encode, request.receive, client_of(request)
        )
        if combine is not None:
            results = [result for result in results if result is not None]
        tracing.record_images(timing, time.monotonic() - started, count)
        return RenderedImages(results, timing, None)

    return render


def _combined(encode: Encode, combine: Combine, count: int) -> Encode:
    """``encode``, which also combines the results, on the thread that adds the last one.

    So the engine counts both, times them and drops them like the encoding of one image.
    """
    results: dict[int, Any] = {}
    lock = threading.Lock()

    def encode_and_combine(info: ImageInfo, pixels: Pixels) -> Any:
        result = encode(info, pixels)
        with lock:
            results[info.index] = result
            if len(results) < count:
                return None
        return combine([results[index] for index in sorted(results)])

    return encode_and_combine


def run_search(
    state: State, source: SeedImages, search: Search, threshold: float | None, request: Request
) -> Render:
    """Render the images that ``search`` finds.

    Rendering raises ``DeadlineExceeded`` if the search exceeds the timeout.
    """
    timeout = state.settings.timeout

    async def render(encode: Encode, combine: Combine | None) -> RenderedImages:
        batches = search_images(state.engine, source, search, threshold, encode, client_of(request))

        async def collect() -> list[Any]:
            results = [result async for batch in batches for result in batch]
            if combine is None:
                return results
            # Not on a thread of the engine, as only now is it known which images were found. It
            # takes a small part of the time that the search was admitted for.
            return [await asyncio.to_thread(combine, results)]

        try:
            async with asyncio.timeout(timeout):
                found = await until_disconnect(request.receive, collect())
        except TimeoutError:
            raise DeadlineExceeded(
                f"not done within {timeout:g} s: {search.taken} images were found among "
                f"{search.tried} tried. Ask for fewer, or for a set, which may take longer"
            ) from None
        return RenderedImages(found, None, None if threshold is None else search.tried)

    return render
