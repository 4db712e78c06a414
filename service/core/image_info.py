"""One image of an answer: its pixels, and what is said of it."""

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
    """All that is said of one image of an answer. ``labels`` is None for an unconditional model."""

    index: int
    labels: dict[str, Any] | None
    address: Address | None
    """None for what lies between addresses: on the way from one image to another, or around one."""
    t: float | None = None
    """Position in an interpolation, 0 to 1."""
    verified: dict[str, float] | None = None
    """Where asked for: the probability that the verifier gives each value that was."""
