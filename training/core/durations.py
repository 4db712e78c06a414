"""Durations as text."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format as ``"3 hours"`` or ``"25 minutes"``: the largest unit that gives at least 2."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
