"""Routes of the Open Inference Protocol below ``/v2``, for clients of KServe and Triton.

The server's probes are in ``health.py``. Errors have the additional member ``error``, which
``problems.py`` adds.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from fastapi import APIRouter, Request, Response

from service import __version__
from service.api.body import read_body, reject_encoded_body
from service.api.openapi_tables import PROBLEM, PROBLEMS, Responses
from service.api.paths import OIP
from service.api.render import check_size, run
from service.api.response_headers import server_timing
from service.api.routes.health import NOT_READY, check_ready
from service.api.routes.models import NOT_FOUND
from service.api.state import CurrentState, State
from service.core.image_request import Version
from service.core.manifest import IMAGE
from service.errors import InvalidRequest
from service.formats import oip_tensors
from service.formats.oip_schemas import (
    BINARY,
    BYTE,
    LENGTH,
    PLATFORM,
    InferAnswer,
    InferRequest,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    metadata,
)
from service.formats.registry import MEDIA_TYPES
from service.inference.model import Model
from service.inference.tensors import TensorImages
from service.observability import metrics

router = APIRouter(prefix=OIP, tags=["open inference protocol"])
BYTES = "application/octet-stream"
MAX_BODY_BYTES = (4 << 20) + (64 << 10)
"""1,024 binary rows of 1,024 numbers with their JSON, or 1,024 rows of 170 numbers in JSON."""
MAX_NUMBERS = 1 << 20
"""Levels in a JSON answer, where each takes four bytes: 85 images of 64x64 in colour."""
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
        "description": "Milliseconds in the queue, in inference and in encoding.",
        "schema": {"type": "string"},
        "required": True,
    },
    LENGTH: {
        "description": "Bytes of JSON before the binary data.",
        "schema": {"type": "integer"},
    },
}
_ANSWERS: Responses = {
    200: {"model": InferAnswer, "content": _BINARY_BODY, "headers": _HEADERS},
    **{status: PROBLEMS[status] for status in PROBLEMS if status != 406},
    415: {"description": "The body is compressed.", "content": PROBLEM},
    422: {
        "description": "The tensors do not match the model, or there are too many rows. `inputs` "
        "and `outputs` describe the model's tensors.",
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
    """The model is loaded, warmed up and ready for inference."""
    return _ready(name, None, state)


@router.get("/models/{name}/versions/{version}/ready", responses=NOT_FOUND | NOT_READY)
async def version_ready(name: str, version: Version, state: CurrentState) -> ModelReady:
    """This version is loaded, warmed up and ready for inference."""
    return _ready(name, version, state)


@router.post("/models/{name}/infer", responses=_ANSWERS, openapi_extra=_BODY)
async def infer(name: str, request: Request, state: CurrentState) -> Response:
    """Images of the given latents, and of conditions if the model takes labels.

    Tensors are numbers in the JSON, or bytes after it. In the second case, the header
    `Inference-Header-Content-Length` has the number of bytes of JSON.
    """
    return await _infer(state.models.get(name), state, request)


@router.post("/models/{name}/versions/{version}/infer", responses=_ANSWERS, openapi_extra=_BODY)
async def infer_by_version(
    name: str, version: Version, request: Request, state: CurrentState
) -> Response:
    """Same with a version."""
    return await _infer(state.models.get(name, version), state, request)


def _describe(name: str, version: int | str | None, state: State) -> ModelMetadata:
    model = state.models.get(name, version)
    return ModelMetadata(
        name=name,
        versions=[str(number) for number in sorted(state.models.versions(name))],
        platform=PLATFORM,
        **metadata(model.manifest),
    )


def _ready(name: str, version: int | str | None, state: State) -> ModelReady:
    state.models.get(name, version)
    check_ready(state)
    return ModelReady(name=name, ready=True)


async def _infer(model: Model, state: State, request: Request) -> Response:
    _check_type(request)
    json_bytes = _json_bytes(request)
    content = await read_body(request.scope, request.receive, MAX_BODY_BYTES)
    parsed = oip_tensors.parse_body(content, json_bytes)
    inputs = oip_tensors.read_inputs(parsed, model.manifest, model.version)
    source = TensorImages(model, *inputs)
    count = len(source.latent)
    check_size("inputs", count, state)

    binary = parsed.request.binary
    _check_answer_size(model, count, binary)
    encode = oip_tensors.encode_binary if binary else oip_tensors.encode_json
    rendered = await run(state, source, count, request)(encode, None)
    metrics.IMAGES_MADE.labels(model.name, model.version, "tensor").inc(count)

    shape = [count, *model.manifest.image_shape]
    output: dict[str, Any] = {"name": IMAGE, "datatype": BYTE, "shape": shape}
    answer: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if parsed.request.id is not None:
        answer["id"] = parsed.request.id
    answer["outputs"] = [output]
    assert rendered.timing is not None
    headers = server_timing(rendered.timing)
    if not binary:
        text = json.dumps(answer).encode("ascii").removesuffix(b"}]}")
        body = b'%b, "data": [%b]}]}' % (text, b",".join(rendered.results))
        return Response(body, headers=headers, media_type=MEDIA_TYPES["json"])
    output["parameters"] = {"binary_data_size": sum(map(len, rendered.results))}
    text = json.dumps(answer).encode("ascii")
    headers[LENGTH] = str(len(text))
    return Response(b"".join([text, *rendered.results]), headers=headers, media_type=BYTES)


def _check_answer_size(model: Model, count: int, binary: bool) -> None:
    """Raise ``InvalidRequest`` for an answer too long for JSON."""
    levels = count * math.prod(model.manifest.image_shape)
    if not binary and levels > MAX_NUMBERS:
        raise InvalidRequest(
            f"inputs: {count} rows make {levels:,} numbers, and JSON may have {MAX_NUMBERS:,}: "
            "set binary_data of the output, or send fewer rows at a time",
            kind="Tensors unfit",
        )


def _check_type(request: Request) -> None:
    """Raise ``BodyEncoded`` for a compressed body, ``InvalidRequest`` for another media type."""
    reject_encoded_body(request.headers)
    media = request.headers.get("content-type", BYTES)
    if media.partition(";")[0].strip().lower() not in (MEDIA_TYPES["json"], BYTES):
        raise InvalidRequest(
            f"body: send it with Content-Type: {MEDIA_TYPES['json']} or {BYTES} "
            f"(it was {media[:100]})"
        )


def _json_bytes(request: Request) -> int | None:
    """Bytes of JSON before binary data; None if the whole body is JSON.

    Raises ``InvalidRequest`` for an invalid header.
    """
    length = request.headers.get(LENGTH)
    if length is None:
        return None
    if not re.fullmatch("[0-9]{1,10}", length) or not int(length):
        raise InvalidRequest(f"{LENGTH}: is {length[:20]}, and must be the length of the JSON")
    return int(length)
