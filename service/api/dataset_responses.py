"""Sets of any size as one streamed file, computed no faster than it is read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.api.auth.access import client_of
from service.api.image_responses import as_headers, until_disconnect
from service.api.middleware.gateway import abort
from service.api.state import State
from service.core.image_info import ImageInfo, Pixels
from service.engine.finder import search_images
from service.engine.queue import Encode
from service.engine.search import Search
from service.errors import ClientDisconnected, InsufficientStorage, RequestError
from service.formats import images
from service.formats.npy import header
from service.formats.registry import MEDIA_TYPES, SUFFIXES, open_writer
from service.inference.seeds import SeedImages
from service.observability import metrics

SETS = tuple(SUFFIXES)

log = logging.getLogger(__name__)


class _Stream(StreamingResponse):
    """A stream that is cut where its reader takes nothing for ``timeout`` seconds, or it fails."""

    timeout: float
    held: AsyncExitStack
    """What is let go at the end, however it comes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole, reason = False, ClientDisconnected.reason()

        async def in_time(message: Message) -> None:
            nonlocal whole
            async with asyncio.timeout(self.timeout):
                await send(message)
            whole = not message.get("more_body", True)

        async with self.held:
            try:
                await super().__call__(scope, receive, in_time)
            except TimeoutError:
                log.info("a reader took nothing for %g s: its stream is cut", self.timeout)
                reason = "reader"
                abort(scope)
            except RequestError as error:
                log.warning("a stream is cut: %s", error)
                reason = error.reason()
                abort(scope)
            except asyncio.CancelledError:
                reason = "ending"
                raise
            except Exception:  # which is logged, and its stream cut, at the gate
                reason = "internal-error"
                raise
            finally:
                if not whole:
                    metrics.STREAMS_CUT.labels(reason).inc()


async def set_answer(
    format_: str,
    head: Mapping[str, Any],
    samples: SeedImages,
    search: Search | None,
    threshold: float | None,
    state: State,
    request: Request,
) -> Response:
    """All ``samples``, or those that ``search`` finds, sent as they are computed."""
    finish: Encode = _pixels if format_ == "npy" else images.png_record
    count = len(samples.indices)
    payer = client_of(request)
    if search is None:
        batches = state.engine.stream(samples, count, finish, payer)
    else:
        batches = search_images(state.engine, samples, search, threshold, finish, payer)
    model, manifest = samples.model, samples.model.manifest
    names = [attribute.name for attribute in manifest.attributes]
    shape = (count, manifest.height, manifest.width, manifest.channels)
    async with AsyncExitStack() as stack:
        stack.enter_context(state.streams)
        await stack.enter_async_context(aclosing(batches))
        # What is refused is refused before the answer has begun, and so is a label not seen.
        first = await until_disconnect(request.receive, _first(batches))
        file = await _in_thread(open_writer, format_, names, shape)
        stack.callback(file.close)

        made = metrics.IMAGES_MADE.labels(model.name, model.version, format_)

        async def body() -> AsyncIterator[bytes]:
            yield await _in_thread(file.add, first)
            made.inc(len(first))
            async for batch in batches:
                yield await _in_thread(file.add, batch)
                made.inc(len(batch))
            rest = file.end()
            while piece := await _in_thread(next, rest, b""):
                yield piece

        name = f"{model.name}-{model.version}-{samples.seed}-{samples.indices[0]}"
        headers = as_headers({**head, "model_sha256": model.sha256, "software": state.software})
        if threshold is not None and model.verifier is not None:
            headers["Figment-Verifier-Sha256"] = model.verifier.sha256
        headers["Content-Disposition"] = f'attachment; filename="{name}{SUFFIXES[format_]}"'
        if format_ == "npy":
            size = len(header(shape)) + count * manifest.height * manifest.width * manifest.channels
            headers["Content-Length"] = str(size)
        answer = _Stream(body(), headers=headers, media_type=MEDIA_TYPES[format_])
        answer.timeout, answer.held = state.settings.timeout, stack.pop_all()
        return answer


async def _in_thread(step: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``step`` of making a file. Raises ``InsufficientStorage`` if a temporary file fails."""
    try:
        return await asyncio.to_thread(step, *arguments)
    except OSError as error:
        raise InsufficientStorage(
            f"the temporary files of a set cannot be written: {error}"
        ) from error


async def _first(batches: AsyncGenerator[list[Any], None]) -> list[Any]:
    """The first batch that holds anything."""
    while not (batch := await anext(batches)):
        pass
    return batch


def _pixels(frame: ImageInfo, pixels: Pixels) -> bytes:
    return pixels.tobytes()
