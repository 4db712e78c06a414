"""Images of one request, computed by the engine and held in memory until all are done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fastapi import Request

from service.api.auth.rate_limit import client_of
from service.api.disconnect import until_disconnect
from service.api.state import State
from service.engine.queue import Encode
from service.engine.search import Search, search_images
from service.errors import AnswerTooLarge, DeadlineExceeded
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


Render = Callable[[Encode], Awaitable[RenderedImages]]
"""Computes the images of a request, and encodes each with the given function."""


def check_size(field: str, count: int, state: State) -> None:
    """Raise ``AnswerTooLarge`` for more images than one answer holds in memory."""
    limit = state.settings.max_images
    if count > limit:
        raise AnswerTooLarge(
            f"{field}: {count} images do not fit into one answer; at most {limit}",
            max_images=limit,
        )


def run(state: State, source: ImageSource, count: int, request: Request) -> Render:
    """Render the images at ``range(count)`` of ``source``."""

    async def render(encode: Encode) -> RenderedImages:
        started = time.monotonic()
        results, timing = await state.engine.run(
            source, count, encode, request.receive, client_of(request)
        )
        tracing.record_images(timing, time.monotonic() - started, count)
        return RenderedImages(results, timing, None)

    return render


def run_search(
    state: State, source: SeedImages, search: Search, threshold: float | None, request: Request
) -> Render:
    """Render the images that ``search`` finds.

    Rendering raises ``DeadlineExceeded`` if the search exceeds the timeout.
    """
    timeout = state.settings.timeout

    async def render(encode: Encode) -> RenderedImages:
        batches = search_images(state.engine, source, search, threshold, encode, client_of(request))

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
        return RenderedImages(found, None, None if threshold is None else search.tried)

    return render
