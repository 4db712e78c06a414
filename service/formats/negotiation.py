"""Content negotiation: ``?format=``, else the ``Accept`` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from service.errors import NotAcceptable
from service.formats.registry import MEDIA_TYPES

MAX_ACCEPT_CHARACTERS = 2000
"""Limit of an Accept header: browsers send 150. So many commas take 1 ms to read."""


def choose(accept: str, wanted: str | None, offered: Sequence[str]) -> str:
    """Response format, one of ``offered``; the first is the default. Raises ``NotAcceptable``."""
    if wanted is not None:
        if wanted not in offered:
            raise _not_acceptable(f"format {wanted[:40]!r} is not one of these", offered)
        return wanted
    if len(accept) > MAX_ACCEPT_CHARACTERS:
        longest = f"Accept has more than {MAX_ACCEPT_CHARACTERS} characters. Send one of these"
        raise _not_acceptable(longest, offered)
    return _negotiate(accept, offered)


@functools.lru_cache(maxsize=256)  # clients send few distinct headers
def _negotiate(accept: str, offered: tuple[str, ...]) -> str:
    ranges = _ranges(accept)
    best, _ = max(
        ((format_, _quality(MEDIA_TYPES[format_], ranges)) for format_ in offered),
        key=lambda pair: pair[1],
    )
    if _quality(MEDIA_TYPES[best], ranges) == 0:
        raise _not_acceptable(f"{accept[:200]!r} accepts none of these", offered)
    return best


def _ranges(accept: str) -> dict[str, float]:
    """Media ranges and their weights; ``*/*`` with weight 1 if the header is empty."""
    ranges: dict[str, float] = {}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        if not media:
            continue
        weight = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        try:
            ranges[media] = min(max(float(weight), 0.0), 1.0)
        except ValueError:
            ranges[media] = 0.0
    return ranges or {"*/*": 1.0}


def _quality(media: str, ranges: Mapping[str, float]) -> float:
    """Weight of the most specific range that matches ``media``."""
    for candidate in (media, f"{media.split('/')[0]}/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0


def _not_acceptable(why: str, offered: Sequence[str]) -> NotAcceptable:
    media = ", ".join(f"{format_} ({MEDIA_TYPES[format_]})" for format_ in offered)
    return NotAcceptable(f"{why}: {media}", formats=list(offered))
