"""Answers in JSON: their fields, and the row of an image."""

from __future__ import annotations

import binascii
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.core.image_info import ImageInfo, Pixels
from service.core.manifest import Attribute, Kind, Manifest
from service.formats import images


class GeneratedImage(BaseModel):
    index: int
    labels: dict[str, str] | None
    url: str
    verified: dict[str, float] | None = Field(
        None, description="With `verify`: probability of each requested value."
    )
    data: str = Field(description="PNG in base64.")


class GenerateAnswer(BaseModel):
    model: str
    version: int
    seed: int
    latent_recipe: int
    tried: int | None = Field(None, description="With `verify`: number of images checked.")
    images: list[GeneratedImage]


class InterpolatedImage(BaseModel):
    index: int
    t: float
    labels: dict[str, str | dict[str, float]] | None = Field(
        description="Value of each attribute, or the shares of two values."
    )
    url: str | None = Field(description="Address of the image. Only the two ends have one.")
    data: str = Field(description="PNG in base64.")


class InterpolateAnswer(BaseModel):
    model: str
    version: int
    latent_recipe: int
    images: list[InterpolatedImage]


class Variation(BaseModel):
    index: int
    labels: dict[str, str] | None
    url: None = Field(description="Variations have no address.")
    data: str = Field(description="PNG in base64.")


class VariationsAnswer(BaseModel):
    model: str
    version: int
    latent_recipe: int
    seed: int
    of: str = Field(description="Address of the image that the variations surround.")
    images: list[Variation]


class ModelSummary(BaseModel):
    name: str
    kind: Kind
    versions: list[int]
    version: int = Field(description="Version used if a request names none.")
    aliases: dict[str, int] = Field(description="Aliases, and the version that each stands for.")
    default: bool = Field(description="True if requests of this kind that name no model use it.")
    url: str


class RefusedModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    path: str
    reason: str


class ModelsAnswer(BaseModel):
    models: list[ModelSummary]
    refused: list[RefusedModel]


class ReloadAnswer(BaseModel):
    """Result of a reload. Versions are written `NAME/VERSION`."""

    model_config = ConfigDict(from_attributes=True)

    added: list[str]
    changed: list[str] = Field(description="Versions whose files changed.")
    removed: list[str]
    refused: list[RefusedModel] = Field(description="Files that are not served, and why.")
    warnings: list[str] = Field(description="Why nothing was changed, or what is missing now.")
    aliases: dict[str, dict[str, int]] = Field(description="Aliases of each model after it.")


class ModelVersion(BaseModel):
    version: int
    sha256: str
    url: str
    verifier_sha256: str | None = Field(
        description="SHA-256 of the verifier; null if there is none and `verify` is not available."
    )
    report: str | None = Field(description="URL of its evaluation report; null if it has none.")
    recommendation: str | None = Field(
        description="How many of its images to add to real ones, as measured; null if it was not."
    )
    manifest: Manifest


class ModelAnswer(BaseModel):
    name: str
    kind: Kind
    version: int = Field(description="Version used if a request names none.")
    aliases: dict[str, int] = Field(description="Aliases, and the version that each stands for.")
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
    device: str = Field(description="Device in use, cuda or cpu, whatever the settings say.")
    reason: str = Field(description="Why this device was chosen.")
    models: dict[str, list[int]]


class InfoAnswer(BaseModel):
    version: str
    device: str
    reason: str
    provider: str
    provider_options: dict[str, str] = Field(description="Options that ONNX Runtime reports.")
    onnxruntime: str
    threads: int = Field(description="Threads that compute and encode, in this worker process.")
    concurrent_batches: int = Field(description="Threads that compute at a time; 1 on a GPU.")
    batches: dict[str, dict[str, Any]] = Field(
        description="For each model and version: its batch sizes, and whether several cores "
        "compute a single image."
    )
    admitted_images: int = Field(description="Images queued or running.")
    images_per_second: float | None = Field(description="Throughput, as last measured.")
    settings: dict[str, Any]


class Problem(BaseModel):
    """RFC 9457 problem. Further members list allowed values; below `/v2`, `error` is `detail`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


def json_row(info: ImageInfo, pixels: Pixels) -> bytes:
    """One of ``images`` in an answer."""
    url = info.address.url() if info.address else None
    data = binascii.b2a_base64(images.encode(pixels, "png", url), newline=False)
    # By hand, as json.dumps would search all of the data for characters to escape.
    position = "" if info.t is None else f', "t": {info.t}'
    labels = "null" if info.labels is None else json.dumps(info.labels)
    address = "null" if url is None else f'"{url}"'  # a URL needs no escapes in JSON
    head = f'{{"index": {info.index}{position}, "labels": {labels}, "url": {address}'
    if info.verified is not None:
        head += f', "verified": {json.dumps(info.verified)}'
    return b'%b, "data": "%b"}' % (head.encode("ascii"), data)
