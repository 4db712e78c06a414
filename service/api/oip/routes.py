"""``/v2``: the Open Inference Protocol, for the clients of KServe and Triton.

Its probes of the server are in ``health.py``. Errors carry an ``error`` beside what all of ours
have: see ``problems.py``.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from fastapi import APIRouter, Request, Response

from service import __version__
from service.api.fast_path import receive_body
from service.api.image_responses import PROBLEM, PROBLEMS, check_size, run, server_timing
from service.api.oip import schemas
from service.api.oip.schemas import (
    BINARY,
    BYTE,
    IMAGE,
    LENGTH,
    MAX_NUMBERS,
    PLATFORM,
    InferAnswer,
    InferRequest,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
)
from service.api.problems import PROTOCOL
from service.api.routes.health import NOT_READY, check_ready
from service.api.routes.models import NOT_FOUND
from service.api.state import CurrentState, State
from service.core.image_request import Version
from service.errors import BodyEncoded, InvalidRequest, TensorsUnfit
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.observability import metrics

router = APIRouter(prefix=PROTOCOL, tags=["open inference protocol"])
BYTES = "application/octet-stream"
MAX_BODY = (4 << 20) + (64 << 10)
"""Bytes: 1,024 rows of 1,024 numbers and their JSON; all in JSON, of some 170."""
_BINARY_BODY = {BYTES: {"schema": {"type": "string", "format": "binary"}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPES["json"]: {
                "schema": {"$ref": f"#/components/schemas/{InferRequest.__name__}"}
            },
            **_BINARY_BODY,
        },
    }
}
_HEADERS = {
    "Server-Timing": {
        "description": "Where the time went, in milliseconds.",
        "schema": {"type": "string"},
        "required": True,
    },
    LENGTH: {
        "description": "Bytes of JSON in front of binary data.",
        "schema": {"type": "integer"},
    },
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": InferAnswer, "content": _BINARY_BODY, "headers": _HEADERS},
    **{status: PROBLEMS[status] for status in PROBLEMS if status != 406},
    415: {"description": "The body is compressed.", "content": PROBLEM},
    422: {
        "description": "The tensors are not those of the model, or too many rows. `inputs` and "
        "`outputs` say which they are.",
        "content": PROBLEM,
    },
}


@router.get("")
async def show_server() -> ServerMetadata:
    """Name, version and extensions of the server."""
    return ServerMetadata(name="figment", version=__version__, extensions=[BINARY])


@router.get("/models/{name}", responses=NOT_FOUND)
async def show_tensors(name: str, state: CurrentState) -> ModelMetadata:
    """The tensors of a model."""
    return _describe(name, None, state)


@router.get("/models/{name}/versions/{version}", responses=NOT_FOUND)
async def show_tensors_of_version(
    name: str, version: Version, state: CurrentState
) -> ModelMetadata:
    """The tensors of one version of a model."""
    return _describe(name, version, state)


@router.get("/models/{name}/ready", responses=NOT_FOUND | NOT_READY)
async def model_ready(name: str, state: CurrentState) -> ModelReady:
    """The model is loaded and warmed, and can be computed."""
    return _ready(name, None, state)


@router.get("/models/{name}/versions/{version}/ready", responses=NOT_FOUND | NOT_READY)
async def version_ready(name: str, version: Version, state: CurrentState) -> ModelReady:
    """This version is loaded and warmed, and can be computed."""
    return _ready(name, version, state)


@router.post("/models/{name}/infer", responses=_ANSWERS, openapi_extra=_BODY)
async def infer(name: str, request: Request, state: CurrentState) -> Response:
    """The images of latents, and of conditions where the model takes labels.

    Tensors come and go as numbers in JSON, or as bytes behind it: then the header
    `Inference-Header-Content-Length` tells how many bytes of JSON there are.
    """
    return await _infer(state.library.get(name), state, request)


@router.post("/models/{name}/versions/{version}/infer", responses=_ANSWERS, openapi_extra=_BODY)
async def infer_by_version(
    name: str, version: Version, request: Request, state: CurrentState
) -> Response:
    """As without a version."""
    return await _infer(state.library.get(name, version), state, request)


def _describe(name: str, version: int | str | None, state: State) -> ModelMetadata:
    model = state.library.get(name, version)
    return ModelMetadata(
        name=name,
        versions=[str(number) for number in sorted(state.library.versions(name))],
        platform=PLATFORM,
        **schemas.metadata(model.manifest),
    )


def _ready(name: str, version: int | str | None, state: State) -> ModelReady:
    state.library.get(name, version)
    check_ready(state)
    return ModelReady(name=name, ready=True)


async def _infer(model: Model, state: State, request: Request) -> Response:
    _check_type(request)
    head = _length_of_json(request)
    asked = schemas.read(await receive_body(request, MAX_BODY), head)
    rows = schemas.rows_of(asked, model)
    count = len(rows.latent)
    check_size("inputs", count, state)

    binary = asked.request.binary
    _check_answer(model, count, binary)
    finish = schemas.as_bytes if binary else schemas.as_numbers
    made = await run(state, rows, count, request)(finish)
    metrics.IMAGES_MADE.labels(model.name, model.version, "tensor").inc(count)

    shape = [count, *model.manifest.image_shape]
    output: dict[str, Any] = {"name": IMAGE, "datatype": BYTE, "shape": shape}
    answer: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if asked.request.id is not None:
        answer["id"] = asked.request.id
    answer["outputs"] = [output]
    assert made.timing is not None
    headers = server_timing(made.timing)
    if not binary:
        text = json.dumps(answer).encode("ascii").removesuffix(b"}]}")
        body = b'%b, "data": [%b]}]}' % (text, b",".join(made.results))
        return Response(body, headers=headers, media_type=MEDIA_TYPES["json"])
    output["parameters"] = {"binary_data_size": sum(map(len, made.results))}
    text = json.dumps(answer).encode("ascii")
    headers[LENGTH] = str(len(text))
    return Response(b"".join([text, *made.results]), headers=headers, media_type=BYTES)


def _check_answer(model: Model, count: int, binary: bool) -> None:
    """Raise ``TensorsUnfit`` for an answer that would be too long as JSON."""
    levels = count * math.prod(model.manifest.image_shape)
    if not binary and levels > MAX_NUMBERS:
        raise TensorsUnfit(
            f"inputs: {count} rows make {levels:,} numbers, and JSON may have {MAX_NUMBERS:,}: "
            "set binary_data of the output, or ask for fewer at a time"
        )


def _check_type(request: Request) -> None:
    """Raise ``BodyEncoded`` or ``InvalidRequest`` for a body that cannot be read."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise BodyEncoded(
            f"the body is sent as {encoding[:80]}: send it as it is. Latents are noise, of which "
            "compression saves little"
        )
    media = request.headers.get("content-type", BYTES)
    if media.partition(";")[0].strip().lower() not in (MEDIA_TYPES["json"], BYTES):
        raise InvalidRequest(
            f"body: send it with Content-Type: {MEDIA_TYPES['json']} or {BYTES} "
            f"(it was {media[:100]})"
        )


def _length_of_json(request: Request) -> int | None:
    """In front of binary data; None where all of the body is JSON. Raises ``InvalidRequest``."""
    told = request.headers.get(LENGTH)
    if told is None:
        return None
    if not re.fullmatch("[0-9]{1,10}", told) or not int(told):
        raise InvalidRequest(f"{LENGTH}: is {told[:20]}, and must be the length of the JSON")
    return int(told)
