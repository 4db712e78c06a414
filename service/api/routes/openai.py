"""OpenAI's images API below ``/v1``: a prompt is a label phrase.

Errors have OpenAI's form, which ``problems.py`` gives them.
"""

from __future__ import annotations

import binascii
import calendar
import json
import time
from contextlib import suppress
from datetime import date
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.fast_path import parse_body
from service.api.openapi_tables import PROBLEMS, Responses
from service.api.paths import OPENAI
from service.api.render import check_size, run
from service.api.response_headers import as_headers, model_fields
from service.api.routes.models import NOT_FOUND
from service.api.state import CurrentState
from service.core.image_info import ImageInfo, Pixels
from service.core.latents import draw_seed
from service.errors import InvalidRequest
from service.formats import images
from service.formats.openai_schemas import ImagesAnswer, ImagesRequest, ModelDescription, ModelList
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.inference.seeds import SeedImages
from service.observability import metrics

router = APIRouter(prefix=OPENAI, tags=["openai"])
_SCHEMA = {"$ref": f"#/components/schemas/{ImagesRequest.__name__}"}
_BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPES["json"]: {"schema": _SCHEMA}}}}
_ANSWERS: Responses = {
    200: {"model": ImagesAnswer},
    **{status: PROBLEMS[status] for status in PROBLEMS if status not in (406, 422)},
}


@router.post("/images/generations", responses=_ANSWERS, openapi_extra=_BODY)
async def create_images(state: CurrentState, request: Request) -> Response:
    """Images of a label phrase."""
    body: ImagesRequest = await parse_body(request, ImagesRequest)
    count, extension = body.n or 1, body.output_format or "png"
    check_size("n", count, state)
    model = state.models.resolve(body.model, None, labelled=True)
    size = _size(model, body.size)
    plain = model.manifest.kind == "unconditional" and not body.prompt
    samples = SeedImages(
        model=model,
        seed=draw_seed() if body.seed is None else body.seed,
        indices=range(count),
        labels=[] if plain else [model.vocabulary.resolve(body.prompt)],
    )
    base = str(request.base_url).removesuffix("/")

    def url(index: int) -> str:
        return f'"url": {json.dumps(base + samples.address(index).url(extension))}'

    def encode(info: ImageInfo, pixels: Pixels) -> str:
        file = images.encode(pixels, extension, samples.address(info.index).url(extension))
        # By hand, as json.dumps would search all of the data for characters to escape.
        data = f'"b64_json": "{binascii.b2a_base64(file, newline=False).decode("ascii")}"'
        return data if body.response_format else f"{data}, {url(info.index)}"

    if body.response_format == "url":
        rows = [url(index) for index in samples.indices]
    else:
        rows = (await run(state, samples, count, request)(encode, None)).results
        metrics.IMAGES_MADE.labels(model.name, model.version, extension).inc(count)
    head: dict[str, Any] = {"created": int(time.time()), "seed": samples.seed, "size": size}
    start = json.dumps(head | {"output_format": extension}).removesuffix("}")
    content = f'{start}, "data": [{", ".join(f"{{{row}}}" for row in rows)}]}}'
    headers = as_headers(model_fields(model) | {"seed": samples.seed})
    return Response(content, headers=headers, media_type=MEDIA_TYPES["json"])


@router.get("/models")
async def list_models(state: CurrentState) -> ModelList:
    """Served models."""
    models = state.models
    return ModelList(data=[_describe(models.get(name)) for name in models.models])


@router.get("/models/{name}", responses=NOT_FOUND)
async def show_model(name: str, state: CurrentState) -> ModelDescription:
    """One model."""
    return _describe(state.models.get(name))


def _size(model: Model, requested: str | None) -> str:
    """Size of a model's images. Raises ``InvalidRequest`` if another one was requested."""
    height, width, _ = model.manifest.image_shape
    size = f"{width}x{height}"
    if requested not in (None, "auto", size):
        raise InvalidRequest(
            f"size: images of {model.name!r} are {size}, not {requested}; use {size} or auto",
            kind="Model unfit",
        )
    return size


def _describe(model: Model) -> ModelDescription:
    created = 0
    with suppress(ValueError):  # the manifest takes any text as its date
        exported = date.fromisoformat(model.manifest.provenance.date[:10])
        created = calendar.timegm(exported.timetuple())
    return ModelDescription(id=model.name, created=created)
