"""What may be asked for: the fields of a request for images, their types and ranges."""

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
"""Characters: room for a canonical phrase of 40 attributes."""

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
    """What it may be, not what each of its kinds misses."""
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
    label: Annotated[OneLabel | ManyLabels | None, WrapValidator(label_in_one_sentence)] = Field(
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
