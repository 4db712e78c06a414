"""Timing of one request, for ``Server-Timing`` and traces."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timing:
    """Seconds that a request spent in each stage."""

    queue: float = 0
    """From its arrival until the first of its images started."""
    inference: float = 0
    """Sum over the batches with its images; several may have run at once."""
    encode: float = 0
    """Sum over its own images."""
