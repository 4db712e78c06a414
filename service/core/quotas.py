"""Number of images for each of several labels that alternate by index."""

from __future__ import annotations

MAX_MISSES = 1000
"""Consecutive skipped images, of one label or of all, after which a search stops."""


def quotas(count: int, offset: int, entries: int) -> list[int]:
    """Count of the indices ``offset .. offset+count-1`` that belong to each of ``entries`` labels.

    Index i belongs to entry ``i mod entries``.
    """
    each, more = divmod(count, entries)
    return [each + ((entry - offset) % entries < more) for entry in range(entries)]
