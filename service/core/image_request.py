"""Fields of a request for images, with their types and ranges.

One definition for the HTTP API, the client, the CLI and YAML plans.
"""

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

from service.core.latents import MAX_INDEX, MAX_SEED
from service.core.manifest import ALIAS_PATTERN

MAX_LABELS = 1024
MAX_LABEL_CHARACTERS = 4000
"""Fits a canonical phrase of 40 attributes."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Index = Annotated[int, Field(ge=0, le=MAX_INDEX)]
Truncation = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Phrase = Annotated[StrictStr, Field(max_length=MAX_LABEL_CHARACTERS)]
OneLabel = Phrase | dict[StrictStr, StrictBool | StrictInt | StrictStr]
ManyLabels = Annotated[list[OneLabel], Field(min_length=1, max_length=MAX_LABELS)]
Method = Literal["slerp", "lerp"]
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MAX_LABELS)]


def _version_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the union, instead of one for each of its members."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "version", "should be a number from 1 on, or an alias such as 'latest'"
        ) from error


VersionNumber = Annotated[int, Field(ge=1, le=999_999_999)]
Version = Annotated[
    VersionNumber | Annotated[str, Field(pattern=ALIAS_PATTERN)],
    WrapValidator(_version_in_one_sentence),
]


def label_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the union, instead of one for each of its members."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "label",
            'should be a phrase such as \'red eyes\', a mapping such as {"eyes": "red"}, or, '
            "for several images, a list of 1 to {most} of these",
            {"most": MAX_LABELS},
        ) from error


def _count_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Errors of the member that fits the value: of a number or of a list, not of both."""
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
"""Number of images, or one number for each label."""


@functools.cache
def _known(model: type[BaseModel]) -> list[str]:
    """Names of its fields in JSON."""
    return [field.alias or name for name, field in model.model_fields.items()]


class RequestBody(BaseModel):
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


class GenerateRequest(RequestBody):
    """Images to generate. Every field is optional."""

    n: Numbers = Field(
        1, description="Number of images; or, with a list of labels, one number for each label."
    )
    seed: Seed | None = Field(
        None, description="Drawn at random if omitted; the answer contains it."
    )
    offset: Index = Field(0, description="Index of the first image.")
    model: str | None = Field(
        None, description="Model name. Default: the configured default model."
    )
    version: Version | None = Field(
        None,
        description="A number or an alias. Default: the version of the alias `default`, or the "
        "highest.",
    )
    label: Annotated[OneLabel | ManyLabels | None, WrapValidator(label_in_one_sentence)] = Field(
        None,
        description="A phrase, a mapping, or a list of these; the image at index i takes entry "
        "i mod length. Attributes without a requested value are drawn by frequency.",
    )
    truncation: Truncation = Field(
        1,
        description="Scales latents toward the mean: smaller values give more typical images and "
        "less variety.",
    )
    verify: Probability | None = Field(
        None,
        description="Minimum probability that the verifier must give to every requested value; to "
        "every drawn value if none was requested. Indices below it are skipped.",
    )

    @property
    def count(self) -> int:
        """Total number of images."""
        return self.n if isinstance(self.n, int) else sum(self.n)

    @property
    def labels(self) -> list[OneLabel]:
        """Labels that images use in turn by index; empty if all values are drawn."""
        if self.label is None:
            return []
        return self.label if isinstance(self.label, list) else [self.label]
