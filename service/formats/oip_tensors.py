"""Open Inference Protocol: tensors of a request as inputs of a model, and images as tensors.

A body is JSON, which may be followed by binary tensors. The tensors are those of the model file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from pydantic_core import from_json

from service.core.image_info import ImageInfo, Pixels
from service.core.image_request import explain
from service.core.manifest import CONDITION, LATENT, Manifest
from service.core.text import decode_json
from service.errors import InvalidRequest, MalformedJson
from service.formats.oip_schemas import (
    FLOAT,
    IMAGE,
    LENGTH,
    SHOWN_CHARACTERS,
    InferInput,
    InferRequest,
    metadata,
)

LITTLE_ENDIAN = np.dtype("<f4")
MAX_PARTS = 200_000
"""Lists and mappings in the JSON: more than rows. A body of empty ones would take a second."""


Floats = npt.NDArray[np.float32]


class Inputs(NamedTuple):
    """Inputs of a model: ``latent [N, Z]`` and ``condition [N, C]``."""

    latent: Floats
    condition: Floats


class ParsedInferRequest(NamedTuple):
    request: InferRequest
    data: memoryview
    """Bytes after the JSON."""


def parse_body(body: bytes, json_bytes: int | None) -> ParsedInferRequest:
    """Parse a body whose first ``json_bytes`` are JSON, or all of it if None.

    Raises ``MalformedJson``, and ``InvalidRequest`` for JSON that is not a valid request.
    """
    if json_bytes is not None and json_bytes > len(body):
        raise _unfit(f"{LENGTH} is {json_bytes}, and the body has {len(body)} bytes")
    text = body[:json_bytes]
    if text.count(b"[") + text.count(b"{") > MAX_PARTS:
        raise _unfit(f"the JSON has more than {MAX_PARTS:,} lists and mappings")
    try:
        fields = from_json(decode_json(text))
    except ValueError as error:
        part = "the body is"
        if json_bytes is not None:
            part = f"the first {json_bytes} bytes of the body are"
        raise MalformedJson(f"{part} not JSON: {error}") from None
    try:
        request = InferRequest.model_validate(fields)
    except ValidationError as error:
        raise explain(error.errors()) from None
    return ParsedInferRequest(request, memoryview(body)[len(text) :])


def read_inputs(parsed: ParsedInferRequest, manifest: Manifest, version: int) -> Inputs:
    """Inputs of a model from the tensors of a request.

    Raises ``InvalidRequest`` if names, shapes or data do not match the model.
    """
    request, data = parsed
    sizes = manifest.inputs
    inputs = [tensor.name for tensor in request.inputs]
    _check_names("inputs", inputs, list(sizes), manifest, version)
    if request.outputs:
        outputs = [output.name for output in request.outputs]
        _check_names("outputs", outputs, [IMAGE], manifest, version)
    found = {}
    offset = 0
    for tensor in request.inputs:
        _check_shape(tensor, sizes[tensor.name])
        if tensor.binary_size is None:
            numbers = _from_json(tensor)
        else:
            numbers = _from_bytes(tensor, data[offset : offset + tensor.binary_size])
            offset += tensor.binary_size
        found[tensor.name] = _reshaped(tensor, numbers)
    if offset != len(data):
        raise _unfit(f"{len(data)} bytes follow the JSON, which declares {offset}")
    counts = {name: len(rows) for name, rows in found.items()}
    count = counts[LATENT]
    if set(counts.values()) != {count} or not count:
        counted = " and ".join(f"{rows} rows of {name}" for name, rows in counts.items())
        raise _unfit(f"inputs: there are {counted}; there must be one row for each image")
    none = np.empty((count, 0), np.float32)
    return Inputs(found[LATENT], found.get(CONDITION, none))


def _check_names(
    field: str, names: Sequence[str], known: Sequence[str], manifest: Manifest, version: int
) -> None:
    if sorted(names) != sorted(known):
        named = ", ".join(names)
        raise _unfit(
            f"{field}: model {manifest.name!r} version {version} has {' and '.join(known)}, "
            f"each once, and the request names {named[:SHOWN_CHARACTERS] or 'none'}",
            **metadata(manifest),
        )


def _check_shape(tensor: InferInput, size: int) -> None:
    if len(tensor.shape) != 2 or tensor.shape[1] != size:
        raise _unfit(f"{tensor.name}: its shape is {tensor.shape}, and must be [N, {size}]")


def _from_json(tensor: InferInput) -> Floats:
    data, (_, size) = tensor.data, tensor.shape
    if data is None:
        raise _unfit(
            f"{tensor.name}: has neither data nor a binary_data_size; there is no shared memory"
        )
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) and len(row) == size for row in data):
            raise _unfit(f"{tensor.name}: its rows must all have {size} numbers")
        data = [number for row in data for number in row]
    if not set(map(type, data)) <= {int, float}:
        raise _unfit(f"{tensor.name}: data must be numbers, in one list or in a list for each row")
    try:
        with np.errstate(over="ignore"):  # a number too large for 32 bits becomes infinite
            return np.array(data, np.float32)
    except OverflowError:
        raise _not_finite(tensor) from None


def _from_bytes(tensor: InferInput, data: memoryview) -> Floats:
    size = tensor.binary_size
    if tensor.data is not None:
        raise _unfit(f"{tensor.name}: has both data and a binary_data_size")
    if size != len(data):
        raise _unfit(
            f"{tensor.name}: binary_data_size is {size}, and {len(data)} bytes are left after "
            f"the JSON, whose length is in {LENGTH}"
        )
    if len(data) % LITTLE_ENDIAN.itemsize:
        raise _unfit(f"{tensor.name}: {size} bytes are not a whole number of {FLOAT} values")
    return np.frombuffer(data, LITTLE_ENDIAN)


def _reshaped(tensor: InferInput, numbers: Floats) -> Floats:
    count, size = tensor.shape
    if len(numbers) != count * size:
        raise _unfit(
            f"{tensor.name}: its shape is {tensor.shape}, and its data has {len(numbers)} numbers"
        )
    if not np.isfinite(numbers).all():
        raise _not_finite(tensor)
    return numbers.reshape(count, size)


def _not_finite(tensor: InferInput) -> InvalidRequest:
    return _unfit(f"{tensor.name}: all its numbers must be finite, in 32 bits")


def _unfit(detail: str, **extra: Any) -> InvalidRequest:
    return InvalidRequest(detail, kind="Tensors unfit", **extra)


_DECIMALS = np.array([list(b"%3d," % level) for level in range(256)], np.uint8)


def encode_binary(info: ImageInfo, pixels: Pixels) -> bytes:
    """One image of a binary tensor."""
    return pixels.tobytes()


def encode_json(info: ImageInfo, pixels: Pixels) -> bytes:
    """One image of a list in JSON. JSON allows spaces before numbers: ``  0,255, 17``."""
    return _DECIMALS[pixels.reshape(-1)].tobytes()[:-1]
