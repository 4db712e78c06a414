"""The Open Inference Protocol, ``/v2`` of KServe and Triton: its bodies, and its tensors as rows.

https://github.com/kserve/open-inference-protocol has the protocol,
https://github.com/triton-inference-server/server/tree/main/docs/protocol the extension for binary
tensors. The tensors are those of the model file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError, from_json

from service.core.image_info import ImageInfo, Pixels
from service.core.image_request import explain
from service.core.latents import IndexRange
from service.core.manifest import Manifest
from service.errors import MalformedJson, TensorsUnfit
from service.inference.model import Model
from service.inference.seeds import Floats, ModelInputs, Values

PLATFORM = "onnxruntime_onnx"
"""What Triton calls a model file such as ours."""
BINARY = "binary_tensor_data"
"""What it calls the extension."""
LENGTH = "Inference-Header-Content-Length"
"""The header that tells, where binary tensors follow, how many bytes of JSON there are."""
FLOAT, BYTE = "FP32", "UINT8"
IMAGE = "image"
LITTLE_ENDIAN = np.dtype("<f4")
SHOWN = 200
"""Characters of what a request calls its tensors."""
MAX_TENSORS = 8
"""That a request may name: more than any model has. Each that is wrong is told, at some expense."""
MAX_PARTS = 200_000
"""Lists and mappings in the JSON: more than rows. Empty ones would take a second to make."""
MAX_NUMBERS = 1 << 20
"""Levels in an answer in JSON, where each takes four bytes: 85 images of 64x64 in colour."""


# What is asked.


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 4.0 is the integer 4."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Size = Annotated[StrictInt, Field(ge=0, le=2**63 - 1), BeforeValidator(_whole)]
Numbers = Annotated[
    list[Any],  # looked at all at once, for there may be a hundred thousand
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]
            },
        }
    ),
]


class InputParameters(BaseModel):
    """Others, such as a content type, change nothing."""

    binary_data_size: Size | None = Field(
        None, description="Bytes of its data, which stands behind the JSON, in place of `data`."
    )


class OutputParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    binary_data: StrictBool | None = Field(
        None, description="Send its data behind the JSON, or not. Wins over `binary_data_output`."
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """Others would have the tensor put elsewhere, or be another. One is told, of how many."""
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                told = {"name": repr(name[:SHOWN])}
                raise PydanticCustomError("unknown", "{name} is not known here", told)
        return given


class RequestParameters(BaseModel):
    """Others, such as a priority, change nothing."""

    binary_data_output: StrictBool = Field(False, description="Send data behind the JSON.")


class InferInput(BaseModel):
    name: StrictStr
    shape: Annotated[list[Size], Field(max_length=8)] = Field(description="`[rows, size]`.")
    datatype: Literal["FP32"]
    parameters: InputParameters | None = None
    data: Numbers | None = Field(
        None, description="Finite numbers, row by row: in one list, or in a list for each row."
    )

    @property
    def binary_size(self) -> int | None:
        """Bytes of its data behind the JSON; None where it is not there."""
        return None if self.parameters is None else self.parameters.binary_data_size


class RequestedOutput(BaseModel):
    name: StrictStr
    parameters: OutputParameters | None = None


class InferRequest(BaseModel):
    """Rows for a model, all of which become images."""

    id: StrictStr | None = Field(None, description="Stands in the answer again.")
    parameters: RequestParameters | None = None
    inputs: Annotated[list[InferInput], Field(max_length=MAX_TENSORS)] = Field(
        description="All that the model takes, in any order."
    )
    outputs: Annotated[list[RequestedOutput], Field(max_length=MAX_TENSORS)] | None = Field(
        None, description="`image`, which is all there is."
    )

    @property
    def binary(self) -> bool:
        """The answer is to have its data behind the JSON."""
        for output in self.outputs or []:
            if output.parameters is not None and output.parameters.binary_data is not None:
                return output.parameters.binary_data
        return self.parameters is not None and self.parameters.binary_data_output


class ParsedInferRequest(NamedTuple):
    request: InferRequest
    data: memoryview
    """What stands behind the JSON."""


def read(body: bytes, head: int | None) -> ParsedInferRequest:
    """A body of which the first ``head`` bytes are JSON, or all.

    Raises ``MalformedJson``, and ``InvalidRequest`` for JSON that is no request.
    """
    if head is not None and head > len(body):
        raise TensorsUnfit(f"{LENGTH} is {head}, and the body has {len(body)} bytes")
    text = body[:head]
    if text.count(b"[") + text.count(b"{") > MAX_PARTS:
        raise TensorsUnfit(f"the JSON has more than {MAX_PARTS:,} lists and mappings")
    try:
        found = from_json(text)
    except ValueError as error:
        what = "the body is" if head is None else f"the first {head} bytes of the body are"
        raise MalformedJson(f"{what} not JSON: {error}") from None
    try:
        request = InferRequest.model_validate(found)
    except ValidationError as error:
        raise explain(error.errors()) from None
    return ParsedInferRequest(request, memoryview(body)[len(body) if head is None else head :])


# As rows.


@dataclass(frozen=True)
class TensorImages:
    """The images of rows that a caller has: ``latent [N, Z]`` and ``condition [N, C]``."""

    model: Model
    latent: Floats
    condition: Floats

    def stretches(self, chunk: range) -> list[IndexRange]:
        return []

    def inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        rows = slice(chunk.start, chunk.stop)
        frames = [ImageInfo(index, None, None) for index in chunk]
        return ModelInputs(self.latent[rows], self.condition[rows], frames)


def rows_of(asked: ParsedInferRequest, model: Model) -> TensorImages:
    """Raises ``TensorsUnfit`` where the tensors are not those that the model takes and gives."""
    request, data = asked
    sizes = model.manifest.inputs
    _check_names("inputs", [tensor.name for tensor in request.inputs], list(sizes), model)
    if request.outputs:
        _check_names("outputs", [output.name for output in request.outputs], [IMAGE], model)
    found = {}
    at = 0
    for tensor in request.inputs:
        _check_shape(tensor, sizes[tensor.name])
        if tensor.binary_size is None:
            numbers = _from_json(tensor)
        else:
            numbers = _from_bytes(tensor, data[at : at + tensor.binary_size])
            at += tensor.binary_size
        found[tensor.name] = _in_shape(tensor, numbers)
    if at != len(data):
        raise TensorsUnfit(f"{len(data)} bytes stand behind the JSON, which speaks of {at}")
    counts = {name: len(rows) for name, rows in found.items()}
    count = counts["latent"]
    if set(counts.values()) != {count} or not count:
        told = " and ".join(f"{rows} rows of {name}" for name, rows in counts.items())
        raise TensorsUnfit(f"inputs: there are {told}; there must be one row for each image")
    none = np.empty((count, 0), np.float32)
    return TensorImages(model, found["latent"], found.get("condition", none))


def _check_names(field: str, given: Sequence[str], known: Sequence[str], model: Model) -> None:
    if sorted(given) != sorted(known):
        named = ", ".join(given)
        raise TensorsUnfit(
            f"{field}: model {model.name!r} version {model.version} has {' and '.join(known)}, "
            f"each once, and the request names {named[:SHOWN] or 'none'}",
            **metadata(model.manifest),
        )


def _check_shape(tensor: InferInput, size: int) -> None:
    if len(tensor.shape) != 2 or tensor.shape[1] != size:
        raise TensorsUnfit(f"{tensor.name}: its shape is {tensor.shape}, and must be [N, {size}]")


def _from_json(tensor: InferInput) -> Floats:
    data, (_, size) = tensor.data, tensor.shape
    if data is None:
        raise TensorsUnfit(
            f"{tensor.name}: has neither data nor a binary_data_size; there is no shared memory"
        )
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) and len(row) == size for row in data):
            raise TensorsUnfit(f"{tensor.name}: its rows must all have {size} numbers")
        data = [number for row in data for number in row]
    if not set(map(type, data)) <= {int, float}:
        raise TensorsUnfit(
            f"{tensor.name}: data must be numbers, in one list or in a list for each row"
        )
    try:
        with np.errstate(over="ignore"):  # what is too large for 32 bits is not finite
            return np.array(data, np.float32)
    except OverflowError:
        raise _not_finite(tensor) from None


def _from_bytes(tensor: InferInput, data: memoryview) -> Floats:
    size = tensor.binary_size
    if tensor.data is not None:
        raise TensorsUnfit(f"{tensor.name}: has both data and a binary_data_size")
    if size != len(data):
        raise TensorsUnfit(
            f"{tensor.name}: binary_data_size is {size}, and {len(data)} bytes are left behind "
            f"the JSON, whose length {LENGTH} tells"
        )
    if len(data) % LITTLE_ENDIAN.itemsize:
        raise TensorsUnfit(f"{tensor.name}: {size} bytes are no whole numbers of {FLOAT}")
    return np.frombuffer(data, LITTLE_ENDIAN)


def _in_shape(tensor: InferInput, numbers: Floats) -> Floats:
    count, size = tensor.shape
    if len(numbers) != count * size:
        raise TensorsUnfit(
            f"{tensor.name}: its shape is {tensor.shape}, and its data has {len(numbers)} numbers"
        )
    if not np.isfinite(numbers).all():
        raise _not_finite(tensor)
    return numbers.reshape(count, size)


def _not_finite(tensor: InferInput) -> TensorsUnfit:
    return TensorsUnfit(f"{tensor.name}: all its numbers must be finite, in 32 bits")


# What is answered.


class ServerLive(BaseModel):
    live: bool


class ServerReady(BaseModel):
    ready: bool


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ModelReady(BaseModel):
    name: str
    ready: bool


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is any number of rows.")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str] = Field(description="All that may be asked for.")
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class InferOutput(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="`[rows, height, width, channels]`.")
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`, where the data stands behind the JSON."
    )
    data: list[int] | None = Field(None, description="Where it does not: in one list.")


class InferAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = Field(None, description="That of the request, if it had one.")
    outputs: list[InferOutput]


def metadata(manifest: Manifest) -> dict[str, Any]:
    """``inputs`` and ``outputs`` of a model."""
    inputs = [(name, FLOAT, [-1, size]) for name, size in manifest.inputs.items()]
    outputs = [(IMAGE, BYTE, [-1, *manifest.image_shape])]
    return {"inputs": _tensors(inputs), "outputs": _tensors(outputs)}


def _tensors(tensors: Sequence[tuple[str, str, list[int]]]) -> list[Mapping[str, Any]]:
    return [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in tensors]


_DECIMALS = np.array([list(b"%3d," % level) for level in range(256)], np.uint8)


def as_bytes(frame: ImageInfo, pixels: Pixels) -> bytes:
    """One image of a binary tensor."""
    return pixels.tobytes()


def as_numbers(frame: ImageInfo, pixels: Pixels) -> bytes:
    """One image of a list in JSON, which takes blanks between numbers: ``  0,255, 17``."""
    return _DECIMALS[pixels.reshape(-1)].tobytes()[:-1]
