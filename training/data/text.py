"""Bytes from outside to text: file names, tables, lists of classes.

UTF-8 with or without a byte order mark, UTF-16 and UTF-32 are recognised. Any other encoding has to
be named with ``--encoding``. Text is in Unicode's normal form NFC, so that a name that macOS wrote
decomposed equals the name in a table.
"""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata

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

    A first line ``sep=;`` names the separator; otherwise it is the one most frequent in the header.
    Raises ``DataError``.
    """
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.strip().strip('"').lower().startswith("sep=") and len(first.strip().strip('"')) <= 5:
        separator, text, skipped = first.strip().strip('"')[4:] or "\t", rest, 1
        first = rest.partition("\n")[0]
    else:
        separator = max(SEPARATORS, key=lambda mark: _fields(first, mark))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = []
    try:
        for fields in reader:
            if fields:
                rows.append((reader.line_num + skipped, [field.strip() for field in fields]))
    except csv.Error as error:
        raise DataError(source, [f"cannot be read: {error}"]) from error
    return rows, SEPARATORS.get(separator, repr(separator))


def _fields(line: str, separator: str) -> int:
    return len(next(csv.reader([line], delimiter=separator), []))
