"""Zip archives of images beside a ``metadata.csv``: Hugging Face's imagefolder layout.

The standard library's writer keeps half a kilobyte in memory for each file of the archive, and
cannot tell a file's size before its content where it cannot seek back. Images are small, so their
sizes are known; what must be told at the end waits in temporary files, about 100 bytes an image.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

from service.formats.sets import Record, table_header, table_row

METADATA = "metadata.csv"
FOLDER = "images"

# PKWARE's APPNOTE, 4.3.7, 4.3.12, 4.3.14 to 16 and 4.5.3.
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")
END = struct.Struct("<4s4H2IH")
OFFSET64 = struct.Struct("<2HQ")

STORED, DEFLATED = 0, 8
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
        self._metadata = _Deflated()
        self._metadata.write(table_header(attributes))
        self._files = 0
        self._position = 0

    def add(self, records: Sequence[Record], /) -> bytes:
        parts = []
        for record in records:
            size, crc = len(record.image), zlib.crc32(record.image)
            parts += [
                self._enter(f"{FOLDER}/{record.file_name}", STORED, crc, size, size),
                record.image,
            ]
            self._position += size
            self._metadata.write(table_row(record, self._attributes, FOLDER))
        return b"".join(parts)

    def end(self) -> Iterator[bytes]:
        table = self._metadata
        packed = table.finish()
        yield self._enter(METADATA, DEFLATED, table.crc, packed, table.size)
        yield from table.content()
        self._position += packed
        start, size = self._position, self._directory.tell()
        yield from _pieces(self._directory)
        yield self._trailer(start, size)

    def close(self) -> None:
        self._directory.close()
        self._metadata.close()

    def _enter(self, name: str, method: int, crc: int, packed: int, size: int) -> bytes:
        """What stands before a file; the directory is told of it, too."""
        raw = name.encode("ascii")
        facts = method, MIDNIGHT, FIRST_OF_1980, crc, packed, size
        header = LOCAL.pack(b"PK\3\4", PLAIN, 0, *facts, len(raw), 0) + raw
        far = self._position >= MOST_32
        extra = OFFSET64.pack(1, 8, self._position) if far else b""
        version = BEYOND_32_BITS if far else PLAIN
        entry = CENTRAL.pack(
            *(b"PK\1\2", UNIX | version, version, 0, *facts, len(raw), len(extra)),
            *(0, 0, 0, READABLE, min(self._position, MOST_32)),
        )
        self._directory.write(entry + raw + extra)
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


class _Deflated:
    """A compressed file that waits on disk."""

    def __init__(self) -> None:
        self._file = _temporary_file()
        self._compressor = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        self.crc = 0
        self.size = 0

    def write(self, content: bytes) -> None:
        self.crc = zlib.crc32(content, self.crc)
        self.size += len(content)
        self._file.write(self._compressor.compress(content))

    def finish(self) -> int:
        """Its size, compressed."""
        self._file.write(self._compressor.flush())
        return self._file.tell()

    def content(self) -> Iterator[bytes]:
        return _pieces(self._file)

    def close(self) -> None:
        self._file.close()


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE):
        yield piece
