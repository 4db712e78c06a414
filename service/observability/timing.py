"""Where the time of a request went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timing:
    """Where the time of a request went, in seconds."""

    queue: float = 0
    """From its arrival until the first of its images was begun."""
    inference: float = 0
    """Of the batches that its images were in, added up; several may have run at once."""
    encode: float = 0
    """Of its own images, added up."""
