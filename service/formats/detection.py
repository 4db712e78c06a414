"""Verdict on an image file: what its mark says, and whether it is the image at its address."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.core.image_info import Pixels
from service.formats import marks

MAX_MEAN_DIFFERENCE = 16.0
"""Copies of 64 faces as JPEG (quality 30) and at half the size differ by at most 13 on average from
the image at their address, and two different faces by 22 or more."""


class DetectAnswer(BaseModel):
    synthetic: bool = Field(description="True if the image has a mark. False proves nothing.")
    by: Literal["pixels", "metadata"] | None = Field(
        description="`pixels`: the image at the address was made again, and it is this one or a "
        "copy of it. `metadata`: only the mark says so."
    )
    address: str | None = Field(
        description="Address in the mark; of a sheet or an animation, that of its first image."
    )
    max_difference: int | None = Field(
        description="Largest difference to the image at the address, 0 to 255; 0 if all pixels "
        "are equal. Null if it was not made again."
    )
    mean_difference: float | None = Field(
        description="Mean difference, 0 to 255. A copy as JPEG or in another size has a small one."
    )
    detail: str


def unmarked() -> DetectAnswer:
    detail = "No mark was found, which does not prove that the image is not synthetic."
    return _answer(None, None, detail)


def marked(address: str | None, detail: str) -> DetectAnswer:
    """Verdict on an image that is not made again; ``detail`` says why."""
    return _answer("metadata", address, detail)


def compared(content: bytes, pixels: Pixels, address: str) -> DetectAnswer:
    """Verdict on a file whose mark has ``address``, where the image is ``pixels``."""
    largest, mean = marks.difference(content, pixels)
    if largest == 0:
        return _answer("pixels", address, "It is the image at this address.", 0, 0.0)
    if mean <= MAX_MEAN_DIFFERENCE:
        copy = "It is a copy of the image at this address."
        return _answer("pixels", address, copy, largest, mean)
    return _answer("metadata", address, "It is not the image at this address.", largest, mean)


def _answer(
    by: Literal["pixels", "metadata"] | None,
    address: str | None,
    detail: str,
    largest: int | None = None,
    mean: float | None = None,
) -> DetectAnswer:
    return DetectAnswer(
        synthetic=by is not None,
        by=by,
        address=address,
        max_difference=largest,
        mean_difference=None if mean is None else round(mean, 2),
        detail=detail,
    )
