"""Request for a set: which images, and how its files and labels are laid out."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from service.core.image_request import ImageRequest
from service.errors import InvalidRequest

MAX_SPLITS = 8
MAX_SUM_ERROR = 1e-6
"""Decimal fractions such as 0.7, 0.2 and 0.1 do not sum to exactly 1."""
SPLITS = (
    f"1 to {MAX_SPLITS} different names with fractions above 0 that sum to 1, such as "
    '{"train": 0.9, "val": 0.1}; a name has up to 32 lower-case letters, digits and "_"'
)

LayoutName = Literal["table", "folders"]
LabelForm = Literal["ids", "names"]
Splits = Annotated[
    dict[
        Annotated[str, Field(pattern="^[a-z0-9_]{1,32}$")],
        Annotated[float, Field(gt=0, le=1)],
    ],
    Field(min_length=1, max_length=MAX_SPLITS, json_schema_extra={"additionalProperties": False}),
]
AttributeName = Annotated[str, Field(max_length=200)]
AttributeNames = Annotated[
    list[AttributeName],
    Field(min_length=1, max_length=16, json_schema_extra={"uniqueItems": True}),
]


def _by_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the union instead of one for each of its members."""
    try:
        found = validate(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "by", "should be the name of an attribute, or a list of 1 to 16 names"
        ) from error
    if isinstance(found, list) and len(set(found)) < len(found):
        raise PydanticCustomError("by", "names an attribute twice")
    return found


def _splits_in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for all that may be wrong with the names and the fractions."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError("splits", "should be {allowed}", {"allowed": SPLITS}) from error


def read_splits(text: str) -> Any:
    """Splits in a query or an option: ``train:0.9,val:0.1``, or JSON.

    Other text is returned as it is, for ``SetRequest`` to reject.
    """
    try:
        if text.startswith("{"):
            return json.loads(text, object_pairs_hook=_without_repeats)
        pairs = (part.split(":") for part in text.split(","))
        return _without_repeats([(name.strip(), float(share)) for name, share in pairs])
    except (ValueError, RecursionError):
        return text


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raise ``ValueError`` for a repeated name, of which a dict would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found


class SetRequest(ImageRequest):
    """Which images to make, and the layout of a set."""

    layout: LayoutName = Field(
        "table",
        description="zip, and images as files: `table` is `images/KEY.png` with `metadata.csv`; "
        "`folders` is `CLASS/KEY.png`, and `SPLIT/CLASS/KEY.png` with `splits`.",
    )
    by: Annotated[AttributeName | AttributeNames | None, WrapValidator(_by_in_one_sentence)] = (
        Field(
            None,
            description="Attribute that is the class of an image, or several, which make classes "
            "such as `red__black`: for `folders` in a zip, and for `KEY.cls` in WebDataset. If "
            "omitted, the only attribute of the model.",
        )
    )
    splits: Annotated[Splits | None, WrapValidator(_splits_in_one_sentence)] = Field(
        None,
        description='Fraction of the images in each split, such as `{"train": 0.9, "val": '
        "0.1}`. The split of an image follows from its address alone. zip, WebDataset, Parquet.",
    )
    labels: LabelForm = Field(
        "ids",
        description="Parquet: `ids` are indices into the values of an attribute, with their names "
        "in the schema, as Hugging Face's ClassLabel; `names` are strings.",
    )

    @property
    def by_names(self) -> list[str]:
        """Attributes of ``by``; empty without it."""
        if self.by is None:
            return []
        return self.by if isinstance(self.by, list) else [self.by]

    def check_fields_agree(self) -> None:
        """Raise ``InvalidRequest`` also if the fractions of the splits do not sum to 1."""
        super().check_fields_agree()
        total = sum((self.splits or {"": 1}).values())
        if not math.isclose(total, 1, abs_tol=MAX_SUM_ERROR):
            raise InvalidRequest(
                f"splits: the fractions sum to {total:g}; give {SPLITS}", kind="Fields disagree"
            )


class GenerateRequest(SetRequest):
    """Which images to make, and the layout of a set. Every field is optional."""


SET_DEFAULTS = {
    name: field.default
    for name, field in SetRequest.model_fields.items()
    if name not in ImageRequest.model_fields
}
"""Fields that lay out a set, with their defaults."""
