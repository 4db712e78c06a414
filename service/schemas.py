"""The bodies of requests and answers: fields, types and ranges."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.aliases import PATTERN as ALIAS
from service.interpolation import Method
from service.latents import MAX_INDEX, MAX_SEED
from service.manifest import Attribute, Kind, Manifest

MAX_LABELS = 1024
MAX_LABEL = 4000
"""Characters: room for a canonical phrase of 40 attributes."""
MAX_STEPS = 256

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Index = Annotated[int, Field(ge=0, le=MAX_INDEX)]
Truncation = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Phrase = Annotated[StrictStr, Field(max_length=MAX_LABEL)]
OneLabel = Phrase | dict[StrictStr, StrictBool | StrictInt | StrictStr]
ManyLabels = Annotated[list[OneLabel], Field(min_length=1, max_length=MAX_LABELS)]
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MAX_LABELS)]


def _version_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """What it may be, not what each of its kinds misses."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "version", "should be a number from 1 on, or an alias such as 'latest'"
        ) from error


VersionNumber = Annotated[int, Field(ge=1, le=999_999_999)]
Version = Annotated[
    VersionNumber | Annotated[str, Field(pattern=ALIAS)],
    WrapValidator(_version_in_one_sentence),
]


def _in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Without this, every member of the union would say what it misses."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "label",
            'should be a phrase such as \'red eyes\', a mapping such as {"eyes": "red"}, or, '
            "where several images are made, a list of 1 to {most} of these",
            {"most": MAX_LABELS},
        ) from error


def _count_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """What is wrong with a number, or with a list, but not both."""
    try:
        found = validate(value)
    except ValidationError as error:
        of_lists = isinstance(value, list)
        faults = [f["msg"] for f in error.errors() if ("list" in str(f["loc"][0])) == of_lists]
        raise PydanticCustomError("count", "{fault}", {"fault": faults[0]}) from error
    if isinstance(found, list) and not any(found):
        raise PydanticCustomError("count", "should ask for one image at least")
    return found


Numbers = Annotated[Count | Counts, WrapValidator(_count_in_one_sentence)]
"""How many images; or how many of each label."""


@functools.cache
def _known(model: type[BaseModel]) -> list[str]:
    """What its fields are called in JSON."""
    return [field.alias or name for name, field in model.model_fields.items()]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _known(cls)
        unknown = [repr(name[:40]) for name in data if name not in known]
        if unknown:
            raise PydanticCustomError(
                "unknown_field",
                "no field is called {unknown}; there are: {known}",
                {"unknown": " or ".join(unknown[:5]), "known": ", ".join(known)},
            )
        return data


class GenerateRequest(_Request):
    """What to generate. Everything may be left out."""

    n: Numbers = Field(
        1, description="Images; or, beside a list of labels, a list with how many of each."
    )
    seed: Seed | None = Field(None, description="Left out, one is drawn and returned.")
    offset: Index = Field(0, description="Index of the first image.")
    model: str | None = Field(None, description="Left out, the configured default.")
    version: Version | None = Field(
        None,
        description="A number or an alias. Left out, what the alias `default` means, or the "
        "highest.",
    )
    label: Annotated[OneLabel | ManyLabels | None, WrapValidator(_in_one_sentence)] = Field(
        None,
        description="A phrase, a mapping, or a list of these, of which the image at index i takes "
        "entry i mod length. What is left open is drawn by frequency.",
    )
    truncation: Truncation = Field(
        1, description="Latents are shrunk toward the mean by this: typical images, less variety."
    )
    verify: Probability | None = Field(
        None,
        description="Only images whose verifier gives every value that was asked for at least this "
        "probability; every one that was drawn, if none was. Indices that fail are skipped.",
    )

    @property
    def count(self) -> int:
        """Images in all."""
        return self.n if isinstance(self.n, int) else sum(self.n)

    @property
    def labels(self) -> list[OneLabel]:
        """The entries that images take in turn; none if all is drawn."""
        if self.label is None:
            return []
        return self.label if isinstance(self.label, list) else [self.label]


class Point(_Request):
    """One image of a seed."""

    seed: Seed
    index: Index = 0
    label: Annotated[OneLabel | None, WrapValidator(_in_one_sentence)] = None
    truncation: Truncation = 1


class InterpolateRequest(_Request):
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


class VariationsRequest(_Request):
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
    admitted_images: int = Field(description="That wait or are under way.")
    images_per_second: float | None = Field(description="That can be made, as measured last.")
    settings: dict[str, Any]


class Problem(BaseModel):
    """RFC 9457. Further members say what is allowed; below `/v2`, `error` is the detail again."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
