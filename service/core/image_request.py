"""Request for images: fields, types and ranges, shared by the API, YAML plans, CLI and client."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
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
from service.core.quotas import quotas
from service.errors import InvalidRequest

MAX_LABELS = 1024
MAX_LABEL_CHARACTERS = 4000
"""Enough for a canonical phrase of 40 attributes."""
MAX_UNKNOWN = 5
"""Unknown fields named in an error."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Index = Annotated[int, Field(ge=0, le=MAX_INDEX)]
Truncation = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Phrase = Annotated[StrictStr, Field(max_length=MAX_LABEL_CHARACTERS)]
# Fail fast: their errors become one sentence, and 80,000 of them take 0.2 s.
LabelMapping = Annotated[dict[StrictStr, StrictBool | StrictInt | StrictStr], Field(fail_fast=True)]
OneLabel = Phrase | LabelMapping
ManyLabels = Annotated[list[OneLabel], Field(min_length=1, max_length=MAX_LABELS, fail_fast=True)]
Method = Literal["slerp", "lerp"]
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MAX_LABELS)]


def _version_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the union instead of one for each of its members."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "version", "should be a number from 1 on, or an alias such as 'latest'"
        ) from error


def _seed_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the union, which also says how to get a random seed."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "seed",
            "should be a whole number from 0 to {max_seed}; leave it out to have one drawn",
            {"max_seed": MAX_SEED},
        ) from error


SeedOrDrawn = Annotated[Seed | None, WrapValidator(_seed_in_one_sentence)]

VersionNumber = Annotated[int, Field(ge=1, le=999_999_999)]
Version = Annotated[
    VersionNumber | Annotated[str, Field(pattern=ALIAS_PATTERN)],
    WrapValidator(_version_in_one_sentence),
]


def label_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the union instead of one for each of its members."""
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
    """Report the error of the number or of the list, not both."""
    try:
        found = validate(value)
    except ValidationError as error:
        of_lists = isinstance(value, list)
        faults = [f["msg"] for f in error.errors() if ("list" in str(f["loc"][0])) == of_lists]
        raise PydanticCustomError("count", "{fault}", {"fault": faults[0]}) from error
    if isinstance(found, list) and not any(found):
        raise PydanticCustomError("count", "should request at least one image")
    return found


Numbers = Annotated[Count | Counts, WrapValidator(_count_in_one_sentence)]
"""Number of images, or a list with the number for each label."""


@functools.cache
def _field_names(model: type[BaseModel]) -> list[str]:
    """Names of the fields in JSON."""
    return [field.alias or name for name, field in model.model_fields.items()]


class RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _field_names(cls)
        unknown = (repr(name[:40]) for name in data if name not in known)
        if first := list(itertools.islice(unknown, MAX_UNKNOWN)):
            raise PydanticCustomError(
                "unknown_field",
                "no field is called {unknown}; there are: {known}",
                {"unknown": " or ".join(first), "known": ", ".join(known)},
            )
        return data


class ImageRequest(RequestBody):
    """Which images to make. Every field is optional."""

    n: Numbers = Field(
        1,
        description="Number of images; or, with a list of labels, a list with the number for each.",
    )
    label: Annotated[OneLabel | ManyLabels | None, WrapValidator(label_in_one_sentence)] = Field(
        None,
        description="A phrase, a mapping, or a list of these: the image at index i takes entry "
        "i mod length. Attributes that are not named are drawn by frequency.",
    )
    seed: SeedOrDrawn = Field(None, description="Drawn and returned if omitted.")
    offset: Index = Field(0, description="Index of the first image.")
    model: str | None = Field(None, description="The configured default if omitted.")
    version: Version | None = Field(
        None,
        description="A number or an alias. If omitted, the version of the alias `default`, or the "
        "highest.",
    )
    truncation: Truncation = Field(
        1,
        description="Scale latents toward the mean, above 0 to 1: lower gives more typical images "
        "with less variety.",
    )
    verify: Probability | None = Field(
        None,
        description="Only images whose verifier gives every requested value (every drawn one if "
        "no label is given) at least this probability. Indices that fail are skipped.",
    )

    @property
    def label_list(self) -> list[OneLabel]:
        """Labels that indices take in rotation; empty if every attribute is drawn."""
        if self.label is None:
            return []
        return self.label if isinstance(self.label, list) else [self.label]

    @property
    def entries(self) -> list[OneLabel | None]:
        """``label_list``, or a single None if every attribute is drawn."""
        return [*self.label_list] or [None]

    @property
    def count(self) -> int:
        """Total number of images."""
        return self.n if isinstance(self.n, int) else sum(self.n)

    @property
    def counts(self) -> list[int]:
        """Number of images of each entry."""
        if isinstance(self.n, list):
            return self.n
        return quotas(self.n, self.offset, len(self.entries))

    @property
    def may_skip(self) -> bool:
        """True if some indices may be skipped: verified, or counted for each label."""
        return self.verify is not None or isinstance(self.n, list)

    def check_fields_agree(self) -> None:
        """Raise ``InvalidRequest`` if ``n`` does not fit ``label``, or ``offset`` is too high."""
        if isinstance(self.n, list) and len(self.n) != len(self.entries):
            raise InvalidRequest(
                f"n has {len(self.n)} counts for {len(self.label_list)} labels: give one "
                "number, or a list with one number for each label",
                kind="Fields disagree",
            )
        if self.offset + self.count - 1 > MAX_INDEX:
            raise InvalidRequest(
                f"offset: the last index may be at most {MAX_INDEX}", kind="Fields disagree"
            )


def explain(faults: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """Pydantic's errors as one ``InvalidRequest``, a sentence each."""
    listed = [{"field": _field(fault["loc"]), "problem": _problem(fault)} for fault in faults]
    sentences = list(dict.fromkeys(f"{item['field']}: {item['problem']}" for item in listed))
    return InvalidRequest("; ".join(sentences)[:2000], errors=listed[:20])


def _problem(fault: Mapping[str, Any]) -> str:
    """Pydantic's sentence, without the names of our classes."""
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "should be a JSON object"
    return str(fault["msg"])


def _field(location: Sequence[str | int]) -> str:
    """Dotted path: ``("from", "seed")`` is ``from.seed``."""
    return ".".join(str(part)[:80] for part in location) or "body"
