"""Verdict on an image file: what its mark says, and whether it is the image at its address."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from service.core.image_info import Pixels
from service.formats import images, marks

MAX_RELATIVE_DIFFERENCE = 0.35
MAX_SMOOTHED_DIFFERENCE = 32.0
"""Limits of a near match. No other image of the shipped models has passed both; the counts are in
docs/provenance.md, by `benchmarks.near_copies`."""


class DetectAnswer(BaseModel):
    synthetic: bool = Field(description="True if the image has a mark. False proves nothing.")
    by: Literal["pixels", "metadata"] | None = Field(
        description="`pixels`: the image at the address was made again. It is this one if "
        "`max_difference` is 0; otherwise this one is near it, which is no proof. `metadata`: only "
        "the mark says so."
    )
    address: str | None = Field(
        description="Address in the mark; of a sheet or an animation, that of its first image."
    )
    max_difference: int | None = Field(
        description="Largest difference to the image at the address, 0 to 255. 0: all pixels are "
        "equal, and only this is a proof. Null if the image was not made again."
    )
    smoothed_difference: float | None = Field(
        description="Largest difference of the mean of 2 x 2 pixels, 0 to 255; at most "
        f"{MAX_SMOOTHED_DIFFERENCE:g} in a near match."
    )
    relative_difference: float | None = Field(
        description="Mean difference, divided by the contrast of the image at the address; at most "
        f"{MAX_RELATIVE_DIFFERENCE} in a near match."
    )
    detail: str


def unmarked() -> DetectAnswer:
    detail = "No mark was found, which does not prove that the image is not synthetic."
    return _answer(None, None, detail)


def marked(address: str | None, detail: str) -> DetectAnswer:
    """Verdict on an image that is not made again; ``detail`` says why."""
    return _answer("metadata", address, detail)


def compared(picture: Image.Image, pixels: Pixels, address: str) -> DetectAnswer:
    """Verdict on a picture whose mark has ``address``, where the image is ``pixels``."""
    if address.partition("?")[0].endswith(".jpeg"):
        with Image.open(io.BytesIO(images.encode(pixels, "jpeg", address))) as made:
            pixels = np.asarray(made).reshape(pixels.shape)
    found = marks.difference(picture, pixels)
    if found.largest == 0:
        return _answer("pixels", address, "It is the image at this address.", found)
    if found.relative <= MAX_RELATIVE_DIFFERENCE and found.smoothed <= MAX_SMOOTHED_DIFFERENCE:
        near = (
            "It is near the image at this address, as a copy in another format or size is. This "
            "is no proof: only max_difference 0 is."
        )
        return _answer("pixels", address, near, found)
    other = "It is not the image at this address, or a copy that was changed much."
    return _answer("metadata", address, other, found)


def _answer(
    by: Literal["pixels", "metadata"] | None,
    address: str | None,
    detail: str,
    found: marks.Difference | None = None,
) -> DetectAnswer:
    return DetectAnswer(
        synthetic=by is not None,
        by=by,
        address=address,
        max_difference=found and found.largest,
        smoothed_difference=found and round(found.smoothed, 2),
        relative_difference=found and round(found.relative, 4),
        detail=detail,
    )
