"""Text of other programs and of clients, made fit for one line of a log, a problem or a report."""

from __future__ import annotations

SHORT_CHARACTERS = 80


def first_line(error: BaseException) -> str:
    """First non-empty line of an error's message; its repr if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def shortened(text: str) -> str:
    """``text`` without surrounding space, cut to 80 characters and ``...``."""
    if len(text) <= SHORT_CHARACTERS:
        return text.strip()
    return f"{text[:SHORT_CHARACTERS].strip()}..."


def printable(text: str) -> str:
    """``text`` with escapes such as ``\\n`` or ``\\x1b`` for characters that are not printable.

    Stops a client or a model file from forging lines of the log or sending terminal codes.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
