"""One image of an answer: pixels and description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.core.address import Address

Pixels = npt.NDArray[np.uint8]
"""One image ``[H, W, channels]``."""


@dataclass(frozen=True)
class ImageInfo:
    """Description of one image. ``labels`` is None for an unconditional model."""

    index: int
    labels: dict[str, Any] | None
    address: Address | None
    """None for images without an address: inner steps of an interpolation, and variations."""
    t: float | None = None
    """Position in an interpolation, 0 to 1."""
    verified: dict[str, float] | None = None
    """With ``verify``: by attribute, the verifier's probability of the requested value."""
