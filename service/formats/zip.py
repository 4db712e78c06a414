"""Zip archives of images: with a ``metadata.csv``, or in a folder for each class.

With splits, each has a folder of its own.

The standard library's writer keeps half a kilobyte in memory per file, and writes sizes after the
content if it cannot seek. Here sizes are known in advance, and the central directory is kept in
temporary files, about 100 bytes per image.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

from service.formats.layout import IMAGES, Layout
from service.formats.records import ImageRecord, table_header, table_row

METADATA = "metadata.csv"

# PKWARE's APPNOTE, 4.3.7, 4.3.12, 4.3.14 to 16 and 4.5.3.
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")
END = struct.Struct("<4s4H2IH")

STORED = 0
ASCII, UTF_8 = 0, 1 << 11
"""Encoding of a file's name (4.4.4)."""
PLAIN, BEYOND_32_BITS = 20, 45
"""Format version that a reader must support."""
UNIX = 3 << 8
READABLE = 0o100644 << 16
MIDNIGHT, FIRST_OF_1980 = 0, 1 << 5 | 1
"""Earliest time of the format, so that archives do not depend on the time of writing."""
MAX_16, MAX_32 = 0xFFFF, 0xFFFFFFFF
PIECE_BYTES = 1 << 16


class Zip:
    """``ArchiveWriter`` of a zip archive.

    Raises ``OSError`` if the disk is full.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directory = _temporary_file()
        self._tables: dict[str, _Table] = {}
        self._files = 0
        self._position = 0
        if not layout.folders:
            attributes = tuple(layout.values)
            self._tables = {name: _Table(attributes) for name in layout.splits}

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        parts = []
        for record in records:
            size, crc = len(record.image), zlib.crc32(record.image)
            split, path = self._layout.place(record)
            parts += [self._enter(path, crc, size), record.image]
            self._position += size
            if self._tables:
                self._tables[split].add(record)
        return b"".join(parts)

    def end(self) -> Iterator[bytes]:
        for split, table in self._tables.items():
            size = table.file.tell()
            yield self._enter(f"{split}/{METADATA}" if split else METADATA, table.crc, size)
            yield from _pieces(table.file)
            self._position += size
        start, size = self._position, self._directory.tell()
        yield from _pieces(self._directory)
        yield self._trailer(start, size)

    def close(self) -> None:
        for file in (self._directory, *(table.file for table in self._tables.values())):
            # Buffered bytes of a full disk; the file is deleted anyway.
            with contextlib.suppress(OSError):
                file.close()

    def _enter(self, name: str, crc: int, size: int) -> bytes:
        """Local header of a file of ``size`` bytes; also adds it to the central directory."""
        raw = name.encode()
        encoding = ASCII if len(raw) == len(name) else UTF_8
        sizes = [size, size] if size >= MAX_32 else []  # uncompressed and stored
        offset = [self._position] if self._position >= MAX_32 else []
        local, central = _extra(sizes), _extra(sizes + offset)
        version = BEYOND_32_BITS if central else PLAIN
        facts = STORED, MIDNIGHT, FIRST_OF_1980, crc, min(size, MAX_32), min(size, MAX_32)
        header = (
            LOCAL.pack(b"PK\3\4", version, encoding, *facts, len(raw), len(local)) + raw + local
        )
        entry = CENTRAL.pack(
            *(b"PK\1\2", UNIX | version, version, encoding, *facts, len(raw), len(central)),
            *(0, 0, 0, READABLE, min(self._position, MAX_32)),
        )
        self._directory.write(entry + raw + central)
        self._files += 1
        self._position += len(header)
        return header

    def _trailer(self, start: int, size: int) -> bytes:
        """End records for a central directory of ``size`` bytes at ``start``."""
        files, after = self._files, start + size
        end = END.pack(
            *(b"PK\5\6", 0, 0, min(files, MAX_16), min(files, MAX_16)),
            *(min(size, MAX_32), min(start, MAX_32), 0),
        )
        if files < MAX_16 and start < MAX_32 and size < MAX_32:
            return end
        whole = END64.pack(
            *(b"PK\6\6", END64.size - 12, UNIX | BEYOND_32_BITS, BEYOND_32_BITS, 0, 0),
            *(files, files, size, start),
        )
        return whole + LOCATOR64.pack(b"PK\6\7", 0, after, 1) + end


class _Table:
    """Temporary file with a ``metadata.csv``, and its checksum."""

    def __init__(self, attributes: Sequence[str]) -> None:
        self._attributes = attributes
        self.file = _temporary_file()
        self.crc = 0
        self._write(table_header(attributes))
        self.file.flush()  # fail before the response starts if the disk is full

    def add(self, record: ImageRecord) -> None:
        self._write(table_row(record, self._attributes, f"{IMAGES}/{record.file_name}"))

    def _write(self, line: bytes) -> None:
        self.crc = zlib.crc32(line, self.crc)
        self.file.write(line)


def _extra(numbers: Sequence[int]) -> bytes:
    """Zip64 extra field for numbers above 32 bits."""
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece
