"""Manifest of a model: the JSON in a model file under the metadata key ``figment``.

Defined once, here: ``training`` writes it, ``service`` reads it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

METADATA_KEY = "figment"
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
VERSION_PATTERN = r"^[1-9][0-9]{0,8}$"
ALIAS_PATTERN = r"^[a-z][a-z0-9-]{0,63}$"
"""Alias of a version, such as ``stable``."""
MODEL_FILE = "model.onnx"
VERIFIER_FILE = "verifier.onnx"
REPORT_FILE = "report.html"
"""Names of files in ``NAME/VERSION/``."""

LATENT = "latent"
"""Input of a model file, float32 ``[N, Z]``."""
CONDITION = "condition"
"""Input of a conditional model file, float32 ``[N, C]``: one-hot vectors side by side."""
IMAGE = "image"
"""Output of a model file and input of a verifier file, uint8 ``[N, H, W, channels]``."""

MAX_MANIFEST_CHARACTERS = 2**20
MAX_VALUES = 2048
"""Values of all attributes together: twice the 1,000 classes of ImageNet."""

Kind = Literal["unconditional", "conditional"]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Advice = Annotated[str, Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0)]


def normalise(text: str) -> str:
    """Form in which label phrases are compared: lower case, one space between words, NFC."""
    words = re.sub(r"[\s:=_,]+|(?<=\w)-(?=\w)", " ", unicodedata.normalize("NFC", text).casefold())
    return words.strip()


class _Record(BaseModel):
    # Ignores unknown keys, so that a later release can add some.
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Attribute(_Record):
    """One labelled property of the images, such as ``eyes``, and the values it takes."""

    name: Text
    values: Annotated[tuple[Text, ...], Field(min_length=2)]
    frequencies: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    """Share of the training images with each value, in the order of ``values``; sums to 1."""

    @model_validator(mode="after")
    def _consistent(self) -> Attribute:
        seen: dict[str, str] = {}
        for value in self.values:
            if (normalised := normalise(value)) in seen:
                raise ValueError(
                    f"attribute {self.name!r} has the values {seen[normalised]!r} and {value!r}, "
                    "which are equal as labels"
                )
            seen[normalised] = value
        for text in (self.name, *self.values):
            if normalise(text) in ("", "and"):
                raise ValueError(f"{text!r} cannot be used as a label: it has no word but 'and'")
        if len(self.frequencies) != len(self.values):
            raise ValueError(
                f"attribute {self.name!r} has {len(self.values)} values "
                f"but {len(self.frequencies)} frequencies"
            )
        if not math.isclose(sum(self.frequencies), 1, abs_tol=1e-3):
            raise ValueError(f"the frequencies of attribute {self.name!r} do not sum to 1")
        return self


class DatasetInfo(_Record):
    name: Text
    licence: Text
    images: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Provenance(_Record):
    dataset: DatasetInfo
    training: dict[str, Any]
    """Resolved training configuration, and the number of images shown."""
    code_version: Text
    date: Text
    """ISO 8601 date of the export."""


class Metric(_Record):
    name: Text
    value: float
    samples: Count
    against: Text
    """Reference of the measurement, such as held-out images."""
    real: float | None = None
    """Value for as many real images in place of the samples; None if not measured."""


class Manifest(_Record):
    """Description of a model. Raises ``pydantic.ValidationError`` if it contradicts itself."""

    format_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    kind: Kind
    latent_size: Annotated[int, Field(ge=1, le=4096)]
    latent_recipe: Literal[1] = 1
    """Algorithm from (seed, index) to a latent: see ``service/core/latents.py``."""
    height: Annotated[int, Field(ge=1, le=1024)]
    width: Annotated[int, Field(ge=1, le=1024)]
    channels: Literal[1, 3]
    attributes: tuple[Attribute, ...] = ()
    provenance: Provenance
    metrics: tuple[Metric, ...] = ()
    recommendation: Advice | None = None
    """Number of its images to add to given real ones, measured by ``training recommend``."""

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [normalise(attribute.name) for attribute in self.attributes]
        if len(set(names)) != len(names):
            raise ValueError(f"two attributes have the same name, among {', '.join(names)}")
        if self.condition_size > MAX_VALUES:
            raise ValueError(
                f"the attributes have {self.condition_size} values, and may have {MAX_VALUES}"
            )
        if (self.kind == "conditional") != bool(self.attributes):
            raise ValueError(
                "a conditional model has attributes, an unconditional one has none; "
                f"this one is {self.kind} with {len(self.attributes)} attributes"
            )
        return self

    @property
    def condition_size(self) -> int:
        """C, the number of values of all attributes together."""
        return sum(len(attribute.values) for attribute in self.attributes)

    @property
    def values(self) -> dict[str, list[str]]:
        """Values of each attribute."""
        return {attribute.name: list(attribute.values) for attribute in self.attributes}

    @property
    def inputs(self) -> dict[str, int]:
        """Size of each input of the model file, float32 ``[N, size]``, by name."""
        sizes = {LATENT: self.latent_size}
        if self.kind == "conditional":
            sizes[CONDITION] = self.condition_size
        return sizes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.height, self.width, self.channels
