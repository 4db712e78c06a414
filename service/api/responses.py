"""The bodies of requests and answers: fields, types and ranges."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WrapValidator

from service.core.image_request import (
    Count,
    Index,
    Method,
    OneLabel,
    RequestBody,
    Seed,
    Truncation,
    Version,
    label_in_one_sentence,
)
from service.core.manifest import Attribute, Kind, Manifest

MAX_STEPS = 256
Strength = Annotated[float, Field(gt=0, le=1)]


class Point(RequestBody):
    """One image of a seed."""

    seed: Seed
    index: Index = 0
    label: Annotated[OneLabel | None, WrapValidator(label_in_one_sentence)] = None
    truncation: Truncation = 1


class InterpolateRequest(RequestBody):
    """From one image to another. The ends are exactly the images at those addresses."""

    start: Point = Field(alias="from")
    end: Point = Field(alias="to")
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] = Field(16, description="Frames.")
    method: Method = Field("slerp", description="Along the great arc, or the straight line.")
    loop: bool = Field(False, description="There and back in as many frames.")
    model: str | None = None
    version: Version | None = None


class GeneratedImage(BaseModel):
    index: int
    labels: dict[str, str] | None
    url: str
    verified: dict[str, float] | None = Field(
        None, description="With `verify`: the probability of each value that was asked for."
    )
    data: str = Field(description="PNG, in base64.")


class GenerateAnswer(BaseModel):
    model: str
    version: int
    seed: int
    latent_recipe: int
    tried: int | None = Field(None, description="With `verify`: images that were looked at.")
    images: list[GeneratedImage]


class VariationsRequest(RequestBody):
    """Neighbours of one image, under its labels."""

    of: Point
    strength: Strength = Field(
        0.2, description="How far they are: the share of another latent, up to 1, nothing of it."
    )
    n: Count = Field(16, description="Images.")
    seed: Seed | None = Field(None, description="Left out, one is drawn and returned.")
    model: str | None = None
    version: Version | None = None


class InterpolatedImage(BaseModel):
    index: int
    t: float
    labels: dict[str, str | dict[str, float]] | None = Field(
        description="A value, or between two values the share of each."
    )
    url: str | None = Field(description="Only the two ends have an address of their own.")
    data: str = Field(description="PNG, in base64.")


class InterpolateAnswer(BaseModel):
    model: str
    version: int
    latent_recipe: int
    images: list[InterpolatedImage]


class Variation(BaseModel):
    index: int
    labels: dict[str, str] | None
    url: None = Field(description="They have no address of their own.")
    data: str = Field(description="PNG, in base64.")


class VariationsAnswer(BaseModel):
    model: str
    version: int
    latent_recipe: int
    seed: int
    of: str = Field(description="The address of the image that they surround.")
    images: list[Variation]


class ModelSummary(BaseModel):
    name: str
    kind: Kind
    versions: list[int]
    version: int = Field(description="Taken by requests that name none.")
    aliases: dict[str, int] = Field(description="And the versions that they mean.")
    default: bool = Field(description="Taken by requests of this kind that name no model.")
    url: str


class RefusedModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    path: str
    reason: str


class ModelsAnswer(BaseModel):
    models: list[ModelSummary]
    refused: list[RefusedModel]


class ReloadAnswer(BaseModel):
    """Versions are told as `NAME/VERSION`."""

    model_config = ConfigDict(from_attributes=True)

    added: list[str]
    changed: list[str] = Field(description="Their files are not what they were.")
    removed: list[str]
    refused: list[RefusedModel] = Field(
        description="All that is not served as it lies in the folder, and why."
    )
    warnings: list[str] = Field(description="Why nothing was changed, or what lacks now.")
    aliases: dict[str, dict[str, int]] = Field(description="Of each model, those in effect now.")


class ModelVersion(BaseModel):
    version: int
    sha256: str
    url: str
    verifier_sha256: str | None = Field(
        description="Of the verifier, where there is one, and `verify` can be asked for."
    )
    manifest: Manifest


class ModelAnswer(BaseModel):
    name: str
    kind: Kind
    version: int = Field(description="Taken by requests that name none.")
    aliases: dict[str, int] = Field(description="And the versions that they mean.")
    versions: list[ModelVersion]


class AttributeAnswer(Attribute):
    labels: list[str] = Field(description="A phrase for each value, in the order of `values`.")


class LabelsAnswer(BaseModel):
    model: str
    version: int
    attributes: list[AttributeAnswer]


class AliveAnswer(BaseModel):
    status: Literal["alive"]


class ReadyAnswer(BaseModel):
    status: Literal["ready"]
    device: str = Field(description="cuda or cpu: what is used, whatever was asked for.")
    reason: str = Field(description="Why that device.")
    models: dict[str, list[int]]


class InfoAnswer(BaseModel):
    version: str
    device: str
    reason: str
    provider: str
    provider_options: dict[str, str] = Field(description="As ONNX Runtime reports them.")
    onnxruntime: str
    threads: int = Field(description="That compute images at the same time, in this worker.")
    encoders: int = Field(description="That only encode; 0 where those that compute do it.")
    batches: dict[str, dict[str, Any]] = Field(
        description="For each model and version, the sizes of its batches, and whether several "
        "cores make a lone image."
    )
    admitted_images: int = Field(description="Images queued or running.")
    images_per_second: float | None = Field(description="That can be made, as measured last.")
    settings: dict[str, Any]


class Problem(BaseModel):
    """RFC 9457. Further members say what is allowed; below `/v2`, `error` is the detail again."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
