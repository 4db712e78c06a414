"""OpenAI's API of images and models: bodies of its requests and answers, and the form of errors.

https://platform.openai.com/docs/api-reference/images describes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.core.image_request import Count, Phrase, RequestBody, SeedOrDrawn
from service.errors import KIND, InvalidLabel, RateExceeded, Unauthorized, UnknownModel
from service.formats.images import Extension

Size = Annotated[str, Field(pattern="^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")]


class ImagesRequest(RequestBody):
    """Fields of OpenAI's request, with the values that this service can meet, and a seed."""

    prompt: Phrase = Field(
        description="A label phrase such as `red eyes`; empty for an unconditional model."
    )
    model: str | None = Field(None, description="Default: the default conditional model.")
    n: Count | None = Field(1, description="Number of images.")
    size: Size | None = Field("auto", description="`auto`, or the size of the model's images.")
    response_format: Literal["url", "b64_json"] | None = Field(
        None, description="Default: both. `url` alone computes nothing."
    )
    output_format: Extension | None = "png"
    seed: SeedOrDrawn = Field(None, description="An extension. Drawn and returned if omitted.")
    quality: Literal["auto", "standard"] | None = "auto"
    background: Literal["auto", "opaque"] | None = "auto"
    moderation: Literal["auto"] | None = "auto"
    user: str | None = Field(None, description="No effect.")
    safety_identifier: str | None = Field(None, description="No effect.")


class CreatedImage(BaseModel):
    url: str | None = Field(None, description="Permanent address of the image.")
    b64_json: str | None = Field(None, description="Image file in base64.")


class ImagesAnswer(BaseModel):
    created: int = Field(description="Unix time of the answer.")
    seed: int
    size: str
    output_format: Extension
    data: list[CreatedImage]


class ModelDescription(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time of the export; 0 if its date is unknown.")
    owned_by: Literal["figment"] = "figment"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelDescription]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = Field(description="The field of the request that is wrong.")
    code: str = Field(description="OpenAI's code, or the end of the problem's `type`.")


class OpenaiError(BaseModel):
    """Any error below `/v1`."""

    error: ErrorDetail


TYPES = {401: "authentication_error", 429: "rate_limit_error"}
CODES = {
    Unauthorized.kind(): "invalid_api_key",
    UnknownModel.kind(): "model_not_found",
    RateExceeded.kind(): "rate_limit_exceeded",
}
FIELDS = {InvalidLabel.kind(): "prompt", UnknownModel.kind(): "model"}


def error_of(problem: Mapping[str, Any]) -> tuple[int, OpenaiError]:
    """Status and body of an error: 422 becomes 400, as OpenAI has one status for bad fields."""
    status, detail = problem["status"], problem["detail"]
    status = 400 if status == 422 else status
    named = re.match(r"(\w+): ", detail)
    field = named[1] if named and named[1] in ImagesRequest.model_fields else None
    error = ErrorDetail(
        message=detail,
        type=TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        param=FIELDS.get(problem["type"], field),
        code=openai_code(problem["type"]),
    )
    return status, OpenaiError(error=error)


def openai_code(kind: str) -> str:
    """OpenAI's code for the ``type`` of a problem, or one like it."""
    return CODES.get(kind, kind.removeprefix(KIND).replace("-", "_"))
