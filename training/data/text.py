"""Bytes from outside to text: file names, tables, lists of classes.

UTF-8 with or without a byte order mark, UTF-16 and UTF-32 are recognised. Any other encoding has to
be named with ``--encoding``. Text is in Unicode's normal form NFC, so that a name that macOS wrote
decomposed equals the name in a table.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata

from training.data.sniffing import HEAD_BYTES, not_text
from training.errors import DataError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16-LE
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


def compose(text: str) -> str:
    """``text`` in normal form NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def decode(data: bytes, source: str, encoding: str | None = None) -> str:
    """Text of ``data``, without a byte order mark. Raises ``DataError`` for another encoding."""
    if data and (what := not_text(data[:HEAD_BYTES])):
        raise DataError(source, [f"is no text: {what}"])
    try:
        return compose(_decode(data, encoding))
    except (UnicodeDecodeError, LookupError) as error:
        tried = f"{encoding}" if encoding else "UTF-8"
        raise DataError(
            source,
            [f"is not {tried}: {error}; name its encoding, such as --encoding cp1252"],
        ) from error


def _decode(data: bytes, encoding: str | None) -> str:
    for mark, name in MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name)
    if encoding:
        return data.decode(encoding)
    if data[1:2] == b"\0" and data[:1] != b"\0" and len(data) % 2 == 0:
        return data.decode("utf-16-le")
    if data[:1] == b"\0" and data[1:2] not in (b"", b"\0") and len(data) % 2 == 0:
        return data.decode("utf-16-be")
    return data.decode("utf-8")


def decode_name(raw: bytes, source: str, encoding: str | None = None) -> str:
    """Path of a file, with forward slashes. Raises ``DataError`` unless it is UTF-8 or named."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        try:
            if encoding is None:
                raise error
            text = raw.decode(encoding)
        except (UnicodeDecodeError, LookupError) as failed:
            raise DataError(
                source,
                [
                    f"the file name {raw.decode('ascii', 'backslashreplace')!r} is not "
                    f"{encoding or 'UTF-8'}; name its encoding, such as --encoding cp932"
                ],
            ) from failed
    return compose(text)


def slashes(name: str) -> str:
    """``name`` with forward slashes, as Windows may not have written it."""
    return name.replace("\\", "/")


def read_rows(text: str, source: str) -> tuple[list[tuple[int, list[str]]], str]:
    """Rows of a delimited table, each with the number of its line, and the separator found.

    A first line ``sep=;`` names the separator; otherwise it is the one that parts the first two
    lines into the same number of fields, or is most frequent in the header. Raises ``DataError``.
    """
    lines = re.split(r"\r\n|\r|\n", text, maxsplit=2)
    named = lines[0].strip().strip('"')
    skipped = 0
    if named.lower().startswith("sep=") and len(named) <= 5:
        separator, skipped = named[4:] or "\t", 1
        text = text[len(lines[0]) :].removeprefix("\r").removeprefix("\n")
    else:
        separator = max(SEPARATORS, key=lambda mark: _fit(lines[:2], mark))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = []
    try:
        for fields in reader:
            if fields:
                rows.append((reader.line_num + skipped, [field.strip() for field in fields]))
    except csv.Error as error:
        raise DataError(source, [f"cannot be read: {error}"]) from error
    return rows, SEPARATORS.get(separator, repr(separator))


def _fit(lines: list[str], separator: str) -> tuple[bool, int]:
    """Whether the first two lines have the same number of fields, above one; and the number."""
    try:
        counts = [len(next(csv.reader([line], delimiter=separator), [])) for line in lines]
    except csv.Error:
        return False, 0
    return counts[0] > 1 and len(set(counts)) == 1, counts[0]
