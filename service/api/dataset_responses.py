"""Sets of any size as one streamed file, computed no faster than the client reads."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.api.auth.rate_limit import client_of
from service.api.disconnect import until_disconnect
from service.api.middleware.gateway import abort
from service.api.response_headers import as_headers
from service.api.state import State
from service.engine.queue import Encode
from service.engine.search import Search, search_images
from service.errors import (
    KIND,
    ClientDisconnected,
    InsufficientStorage,
    RequestError,
)
from service.formats import images
from service.formats.layout import Layout
from service.formats.npy import header
from service.formats.registry import MEDIA_TYPES, SUFFIXES, open_writer
from service.inference.seeds import SeedImages
from service.observability import metrics

SETS = tuple(SUFFIXES)

log = logging.getLogger(__name__)


class _Stream(StreamingResponse):
    """Streaming response that aborts its connection if it fails or the client stops reading."""

    timeout: float
    """Seconds that the client may take to read one part."""
    resources: AsyncExitStack
    """Released when the response ends, for whatever reason."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        complete, reason = False, ClientDisconnected.reason()

        async def send_in_time(message: Message) -> None:
            nonlocal complete
            async with asyncio.timeout(self.timeout):
                await send(message)
            complete = not message.get("more_body", True)

        async with self.resources:
            try:
                await super().__call__(scope, receive, send_in_time)
            except TimeoutError:
                log.info("aborted a stream: the client read nothing for %g s", self.timeout)
                reason = "reader"
                abort(scope)
            except RequestError as error:
                log.warning("aborted a stream: %s", error)
                reason = error.problem()["type"].removeprefix(KIND)
                abort(scope)
            except asyncio.CancelledError:
                reason = "ending"
                raise
            except Exception:  # the gateway logs it and aborts the connection
                reason = "internal-error"
                raise
            finally:
                if not complete:
                    metrics.STREAMS_CUT.labels(reason).inc()


async def set_answer(
    format_: str,
    head: Mapping[str, Any],
    samples: SeedImages,
    search: Search | None,
    threshold: float | None,
    layout: Layout,
    state: State,
    request: Request,
) -> Response:
    """Stream all ``samples``, or those that ``search`` finds, as they are computed.

    Raises ``RequestError`` before the answer starts if the first batch fails.
    """
    encode: Encode = images.raw_record if format_ == "npy" else images.png_record
    count = len(samples.indices)
    client = client_of(request)
    if search is None:
        batches = state.engine.stream(samples, count, encode, client)
    else:
        batches = search_images(state.engine, samples, search, threshold, encode, client)
    model = samples.model
    shape = (count, *model.manifest.image_shape)
    async with AsyncExitStack() as stack:
        stack.enter_context(state.streams)
        await stack.enter_async_context(aclosing(batches))
        first = await until_disconnect(request.receive, _first(batches))
        writer = await _in_thread(open_writer, format_, layout, shape)
        stack.callback(writer.close)

        sent = metrics.IMAGES_MADE.labels(model.name, model.version, format_)

        async def body() -> AsyncIterator[bytes]:
            yield await _in_thread(writer.add, first)
            sent.inc(len(first))
            async for batch in batches:
                yield await _in_thread(writer.add, batch)
                sent.inc(len(batch))
            rest = writer.end()
            while part := await _in_thread(next, rest, b""):
                yield part

        headers = set_headers(format_, head, samples, state)
        if threshold is not None and model.verifier is not None:
            headers["Figment-Verifier-Sha256"] = model.verifier.sha256
        answer = _Stream(body(), headers=headers, media_type=MEDIA_TYPES[format_])
        answer.timeout, answer.resources = state.settings.timeout, stack.pop_all()
        return answer


def set_headers(
    format_: str, head: Mapping[str, Any], samples: SeedImages, state: State
) -> dict[str, str]:
    """Headers of a set, known before its first image."""
    model = samples.model
    headers = as_headers({**head, "model_sha256": model.sha256, "software": state.software})
    name = f"{model.name}-{model.version}-{samples.seed}-{samples.indices[0]}{SUFFIXES[format_]}"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    if format_ == "npy":
        shape = (len(samples.indices), *model.manifest.image_shape)
        headers["Content-Length"] = str(len(header(shape)) + math.prod(shape))
    return headers


async def _in_thread(step: Callable[..., Any], *arguments: Any) -> Any:
    """Run a step of writing the file. Raises ``InsufficientStorage`` if a temporary file fails."""
    try:
        return await asyncio.to_thread(step, *arguments)
    except OSError as error:
        raise InsufficientStorage(
            f"the temporary files of a set cannot be written: {error}"
        ) from error


async def _first(batches: AsyncGenerator[list[Any], None]) -> list[Any]:
    """The first batch that is not empty: a search may find nothing in some."""
    while not (batch := await anext(batches)):
        pass
    return batch
