"""How many images belong to each of several labels that take turns."""

from __future__ import annotations

MAX_MISSES = 1000
"""Images in a row, of one entry or of all, that may be left out before the search is given up."""


def quotas(count: int, offset: int, entries: int) -> list[int]:
    """How many of the ``count`` images from ``offset`` on belong to each of the entries."""
    each, more = divmod(count, entries)
    return [each + ((entry - offset) % entries < more) for entry in range(entries)]
