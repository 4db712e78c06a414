"""Requests for images between two others, or near one: fields, types and ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WrapValidator

from service.core.image_request import (
    Count,
    Index,
    Method,
    OneLabel,
    RequestBody,
    Seed,
    SeedOrDrawn,
    Truncation,
    Version,
    label_in_one_sentence,
)

MAX_STEPS = 256
Strength = Annotated[float, Field(gt=0, le=1)]


class Point(RequestBody):
    """One image of a seed."""

    seed: Seed
    index: Index = 0
    label: Annotated[OneLabel | None, WrapValidator(label_in_one_sentence)] = None
    truncation: Truncation = 1


class InterpolateRequest(RequestBody):
    """Interpolation between two images. The ends are exactly the images at those addresses."""

    start: Point = Field(alias="from")
    end: Point = Field(alias="to")
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] = Field(16, description="Number of frames.")
    method: Method = Field("slerp", description="`slerp`: great arc; `lerp`: straight line.")
    loop: bool = Field(False, description="Go to the end and back within `steps` frames.")
    model: str | None = None
    version: Version | None = None


class VariationsRequest(RequestBody):
    """Variations of one image, with its labels."""

    of: Point
    strength: Strength = Field(
        0.2, description="Distance from the image: 1 keeps nothing of its latent."
    )
    n: Count = Field(16, description="Number of images.")
    seed: SeedOrDrawn = Field(None, description="Default: a random seed, which is returned.")
    model: str | None = None
    version: Version | None = None
