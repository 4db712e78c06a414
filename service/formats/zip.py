"""Zip archives of images beside a ``metadata.csv``: Hugging Face's imagefolder layout.

The standard library's writer keeps half a kilobyte in memory for each file of the archive, and
cannot tell a file's size before its content where it cannot seek back. Images are small, so their
sizes are known; what must be told at the end waits in temporary files, about 100 bytes an image.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

from service.formats.records import ImageRecord, table_header, table_row

METADATA = "metadata.csv"
FOLDER = "images"

# PKWARE's APPNOTE, 4.3.7, 4.3.12, 4.3.14 to 16 and 4.5.3.
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")
END = struct.Struct("<4s4H2IH")

STORED = 0
PLAIN, BEYOND_32_BITS = 20, 45
"""Version of the format that a reader must know."""
UNIX = 3 << 8
READABLE = 0o100644 << 16
MIDNIGHT, FIRST_OF_1980 = 0, 1 << 5 | 1
"""The earliest time that the format knows: a set does not say when it was fetched."""
MOST_16, MOST_32 = 0xFFFF, 0xFFFFFFFF
PIECE = 1 << 16


class Zip:
    """A ``Packer`` of zip archives.

    Raises ``OSError`` where there is no room for temporary files.
    """

    def __init__(self, attributes: Sequence[str]) -> None:
        self._attributes = attributes
        self._directory = _temporary_file()
        self._metadata = _temporary_file()
        self._metadata_crc = 0
        self._files = 0
        self._position = 0
        self._write_metadata(table_header(attributes))
        self._metadata.flush()  # a full disk is noticed before an answer has begun

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        parts = []
        for record in records:
            size, crc = len(record.image), zlib.crc32(record.image)
            parts += [
                self._enter(f"{FOLDER}/{record.file_name}", crc, size),
                record.image,
            ]
            self._position += size
            self._write_metadata(table_row(record, self._attributes, FOLDER))
        return b"".join(parts)

    def end(self) -> Iterator[bytes]:
        table = self._metadata.tell()
        yield self._enter(METADATA, self._metadata_crc, table)
        yield from _pieces(self._metadata)
        self._position += table
        start, size = self._position, self._directory.tell()
        yield from _pieces(self._directory)
        yield self._trailer(start, size)

    def close(self) -> None:
        for file in (self._directory, self._metadata):
            with contextlib.suppress(
                OSError
            ):  # of what could not be written, which does not matter
                file.close()

    def _write_metadata(self, line: bytes) -> None:
        self._metadata_crc = zlib.crc32(line, self._metadata_crc)
        self._metadata.write(line)

    def _enter(self, name: str, crc: int, size: int) -> bytes:
        """What stands before a file of ``size`` bytes; the directory is told of it, too."""
        raw = name.encode("ascii")
        sizes = [size, size] if size >= MOST_32 else []  # as it is, and as it is stored
        offset = [self._position] if self._position >= MOST_32 else []
        local, central = _extra(sizes), _extra(sizes + offset)
        version = BEYOND_32_BITS if central else PLAIN
        facts = STORED, MIDNIGHT, FIRST_OF_1980, crc, min(size, MOST_32), min(size, MOST_32)
        header = LOCAL.pack(b"PK\3\4", version, 0, *facts, len(raw), len(local)) + raw + local
        entry = CENTRAL.pack(
            *(b"PK\1\2", UNIX | version, version, 0, *facts, len(raw), len(central)),
            *(0, 0, 0, READABLE, min(self._position, MOST_32)),
        )
        self._directory.write(entry + raw + central)
        self._files += 1
        self._position += len(header)
        return header

    def _trailer(self, start: int, size: int) -> bytes:
        """Where the directory is, ``size`` bytes from ``start`` on."""
        files, after = self._files, start + size
        end = END.pack(
            *(b"PK\5\6", 0, 0, min(files, MOST_16), min(files, MOST_16)),
            *(min(size, MOST_32), min(start, MOST_32), 0),
        )
        if files < MOST_16 and start < MOST_32 and size < MOST_32:
            return end
        whole = END64.pack(
            *(b"PK\6\6", END64.size - 12, UNIX | BEYOND_32_BITS, BEYOND_32_BITS, 0, 0),
            *(files, files, size, start),
        )
        return whole + LOCATOR64.pack(b"PK\6\7", 0, after, 1) + end


def _extra(numbers: Sequence[int]) -> bytes:
    """The field for numbers that 32 bits do not hold."""
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE):
        yield piece
