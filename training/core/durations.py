"""Durations as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """``"3 hours"``, ``"25 minutes"``: in the largest unit that gives 2 or more."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
