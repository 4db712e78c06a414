"""Open Inference Protocol: bodies of its requests and answers.

https://github.com/kserve/open-inference-protocol has the protocol,
https://github.com/triton-inference-server/server/tree/main/docs/protocol the extension for binary
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.core.manifest import Manifest

PLATFORM = "onnxruntime_onnx"
"""Triton's name for ONNX model files."""
BINARY = "binary_tensor_data"
"""Triton's name for the extension."""
LENGTH = "Inference-Header-Content-Length"
"""Header with the bytes of JSON in front of binary tensors."""
FLOAT, BYTE = "FP32", "UINT8"
IMAGE = "image"
SHOWN_CHARACTERS = 200
"""Length to which tensor names of a request are cut in errors."""
MAX_TENSORS = 8
"""Tensors in a request: more than any model has. Reporting each invalid one takes time."""


# Requests.


def _whole(value: Any) -> Any:
    """Read 4.0 as the integer 4, as JSON has one type of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Size = Annotated[StrictInt, Field(ge=0, le=2**63 - 1), BeforeValidator(_whole)]
Numbers = Annotated[
    list[Any],  # checked all at once in `tensors`, as there may be a hundred thousand
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
    """Other parameters, such as a content type, are ignored."""

    binary_data_size: Size | None = Field(
        None, description="Bytes of its data after the JSON, instead of `data`."
    )


class OutputParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    binary_data: StrictBool | None = Field(
        None, description="Send its data after the JSON. Overrides `binary_data_output`."
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, parameters: Any) -> Any:
        """Reject the first unknown parameter: it could redirect or change the tensor."""
        for name in parameters if isinstance(parameters, dict) else ():
            if name not in cls.model_fields:
                shown = {"name": repr(name[:SHOWN_CHARACTERS])}
                raise PydanticCustomError("unknown", "{name} is not a known parameter", shown)
        return parameters


class RequestParameters(BaseModel):
    """Other parameters, such as a priority, are ignored."""

    binary_data_output: StrictBool = Field(False, description="Send data after the JSON.")


class InferInput(BaseModel):
    name: StrictStr
    shape: Annotated[list[Size], Field(max_length=8)] = Field(description="`[rows, size]`.")
    datatype: Literal["FP32"]
    parameters: InputParameters | None = None
    data: Numbers | None = Field(
        None, description="Finite numbers, row by row: in one list, or in one list per row."
    )

    @property
    def binary_size(self) -> int | None:
        """Bytes of its data after the JSON; None if the data is in the JSON."""
        return None if self.parameters is None else self.parameters.binary_data_size


class RequestedOutput(BaseModel):
    name: StrictStr
    parameters: OutputParameters | None = None


class InferRequest(BaseModel):
    """Inference request: each row of the inputs becomes an image."""

    id: StrictStr | None = Field(None, description="Repeated in the answer.")
    parameters: RequestParameters | None = None
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=MAX_TENSORS)] = Field(
        description="All input tensors of the model, in any order."
    )
    outputs: Annotated[list[RequestedOutput], Field(max_length=MAX_TENSORS)] | None = Field(
        None, description="Only `image`, the one output."
    )

    @property
    def binary(self) -> bool:
        """True if the answer has its data after the JSON."""
        for output in self.outputs or []:
            if output.parameters is not None and output.parameters.binary_data is not None:
                return output.parameters.binary_data
        return self.parameters is not None and self.parameters.binary_data_output


# Answers.


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
    shape: list[int] = Field(description="-1 stands for any number of rows.")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str] = Field(description="Available versions.")
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class InferOutput(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="`[rows, height, width, channels]`.")
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`, if the data follows the JSON."
    )
    data: list[int] | None = Field(None, description="The data in one list, otherwise.")


class InferAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = Field(None, description="`id` of the request, if it had one.")
    outputs: list[InferOutput]


def metadata(manifest: Manifest) -> dict[str, Any]:
    """``inputs`` and ``outputs`` of a model: name, datatype and shape of each tensor."""
    inputs = [(name, FLOAT, [-1, size]) for name, size in manifest.inputs.items()]
    outputs = [(IMAGE, BYTE, [-1, *manifest.image_shape])]
    return {"inputs": _tensors(inputs), "outputs": _tensors(outputs)}


def _tensors(tensors: Sequence[tuple[str, str, list[int]]]) -> list[Mapping[str, Any]]:
    return [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in tensors]
