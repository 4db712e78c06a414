"""Text of other programs and of clients: JSON decoded, and messages fit for one line."""

from __future__ import annotations

import codecs
import difflib
import heapq
from collections.abc import Iterable, Sequence

from service.errors import MalformedJson

SHORT_CHARACTERS = 80
MIN_SIMILARITY = 0.6
"""Ratio of difflib, 0 to 1; the same as its default."""
COMPARED_CHARACTERS = 32
MAX_LISTED = 40
"""Names in one sentence: the attributes of CelebA."""
MAX_COMPARED = 32
"""Strings that difflib compares. It takes up to 0.2 ms for each, if all have the same letters."""
BYTE_ORDER_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""UTF-32 first: its little-endian mark begins with that of UTF-16."""


def first_line(error: BaseException) -> str:
    """First non-empty line of an error's message; its repr if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def shortened(text: str) -> str:
    """``text`` without surrounding space, cut to 80 characters and ``...``."""
    if len(text) <= SHORT_CHARACTERS:
        return text.strip()
    return f"{text[:SHORT_CHARACTERS].strip()}..."


def similar(text: str, candidates: Iterable[str], most: int) -> list[str]:
    """Candidates that resemble ``text``, the most similar first, at most ``most``.

    Bounded work, as clients choose the text: difflib compares the starts of the candidates that
    have the most letters in common. 3,000 phrases take 4 ms; all by difflib take 13 ms, or seconds.
    """
    text = text[:COMPARED_CHARACTERS]
    letters = set(text)
    by_start = {candidate[:COMPARED_CHARACTERS]: candidate for candidate in candidates}
    likely = heapq.nlargest(
        MAX_COMPARED,
        by_start,
        key=lambda start: len(letters.intersection(start)) / len(letters.union(start)),
    )
    near = difflib.get_close_matches(text, likely, most, MIN_SIMILARITY)
    return [by_start[start] for start in near]


def listed(names: Sequence[str]) -> str:
    """``names`` separated by commas; of many, the first ones and how many more there are."""
    more = len(names) - MAX_LISTED
    return ", ".join([*names[:MAX_LISTED], *([f"and {more} more"] if more > 0 else [])])


def printable(text: str) -> str:
    """``text`` with escapes such as ``\\n`` or ``\\x1b`` for characters that are not printable.

    Stops a client or a model file from forging lines of the log or sending terminal codes.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def decode_json(content: bytes) -> str:
    """Text of a JSON body in UTF-8, with or without a byte order mark.

    Raises ``MalformedJson`` for another encoding, and names it if it has a byte order mark.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        for name, marks in BYTE_ORDER_MARKS.items():
            if content.startswith(marks):
                raise MalformedJson(
                    f"the body is in {name}: send JSON in UTF-8 (RFC 8259, 8.1)"
                ) from None
        raise MalformedJson(
            f"the body is not UTF-8, which JSON must be (RFC 8259, 8.1): byte {error.start} is "
            f"0x{content[error.start]:02x}"
        ) from None
