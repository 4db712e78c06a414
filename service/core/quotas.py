"""Number of images of each label when indices take labels in rotation."""

from __future__ import annotations

MAX_MISSES = 1000
"""Images of one label skipped in a row after which a search fails with ``LabelNotVerified``."""


def quotas(count: int, offset: int, entries: int) -> list[int]:
    """Number of the ``count`` images from ``offset`` on that belong to each of ``entries``."""
    each, more = divmod(count, entries)
    return [each + ((entry - offset) % entries < more) for entry in range(entries)]
