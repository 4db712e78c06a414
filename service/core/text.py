"""Text of other programs and of clients: JSON decoded, and messages fit for one line."""

from __future__ import annotations

import codecs

from service.errors import MalformedJson

SHORT_CHARACTERS = 80
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


def printable(text: str) -> str:
    """``text`` with escapes such as ``\\n`` or ``\\x1b`` for characters that are not printable.

    Stops a client or a model file from forging lines of the log or sending terminal codes.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def decode_json(content: bytes) -> str:
    """Text of a JSON body in UTF-8, with or without a byte order mark.

    Raises ``MalformedJson`` for another encoding, and names it if it has a byte order mark.
    """
    for name, marks in BYTE_ORDER_MARKS.items():
        if content.startswith(marks):
            raise MalformedJson(f"the body is in {name}: send JSON in UTF-8 (RFC 8259, 8.1)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedJson(
            f"the body is not UTF-8, which JSON must be (RFC 8259, 8.1): byte {error.start} is "
            f"0x{content[error.start]:02x}"
        ) from None
