"""Frames as an HTTP answer in the format that was chosen."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from fastapi import Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.engine import Engine
from service.errors import InvalidRequest
from service.formats import images
from service.formats.negotiation import MEDIA_TYPES
from service.models import Model
from service.sampling import Frame
from service.schemas import Problem

Frames: TypeAlias = Callable[[range], list[Frame]]
"""Computes the images at some positions of an answer."""

Accept = Annotated[str, Header(include_in_schema=False)]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str | None = Field(None, description="Wins over the Accept header.")


FormatQuery = Annotated[_Query, Query()]

PROBLEM = {"application/problem+json": {"schema": Problem.model_json_schema()}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not JSON.", "content": PROBLEM},
    404: {"description": "No such model or version.", "content": PROBLEM},
    406: {"description": "No such format.", "content": PROBLEM},
    413: {"description": "The body is too large.", "content": PROBLEM},
    422: {"description": "A field is out of range, or a label unknown.", "content": PROBLEM},
}


def refuse_repeats(request: Request) -> None:
    """Raise ``InvalidRequest`` where a query parameter stands twice: one would be ignored."""
    names = [name for name, _ in request.query_params.multi_items()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidRequest(f"{repeated[0][:80]}: stands twice in the query")


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


async def json_answer(
    engine: Engine,
    head: Mapping[str, Any],
    count: int,
    frames: Frames,
    describe: Callable[[int, Frame], dict[str, Any]],
) -> Response:
    """``head`` and the images, each as ``describe`` has it with its PNG in base64."""

    def work(chunk: range) -> list[dict[str, Any]]:
        return [
            describe(position, frame) | {"data": _base64_png(frame)}
            for position, frame in zip(chunk, frames(chunk), strict=True)
        ]

    body = {**head, "images": await engine.in_chunks(count, work)}
    return Response(json.dumps(body), media_type=MEDIA_TYPES["json"])


async def image_answer(
    engine: Engine,
    head: Mapping[str, Any],
    extension: str,
    count: int,
    frames: Frames,
    columns: int | None = None,
) -> Response:
    """The image if ``count`` is 1, else a contact sheet; ``head`` becomes ``Figment-*`` headers."""
    computed = await engine.in_chunks(count, frames)
    headers = as_headers(head)
    addresses = [frame.address.url(extension) for frame in computed if frame.address]
    if count == 1:
        headers["Content-Location"] = addresses[0]
    pixels = [frame.pixels for frame in computed]

    def work() -> bytes:
        sheet = pixels[0] if count == 1 else images.contact_sheet(pixels, columns)
        ends = dict.fromkeys([addresses[0], addresses[-1]])  # one where the two are the same
        return images.encode(sheet, extension, " .. ".join(ends))

    return Response(await engine.call(work), headers=headers, media_type=MEDIA_TYPES[extension])


def _base64_png(frame: Frame) -> str:
    address = frame.address.url() if frame.address else None
    return base64.b64encode(images.encode(frame.pixels, "png", address)).decode("ascii")
