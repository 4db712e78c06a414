"""Records of labelled images, and the protocol of the writers that put them into one file.

Writers emit bytes while images arrive. File names, labels and addresses are the same in every
format, and the same records give the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.core.image_info import ImageInfo


@dataclass(frozen=True)
class ImageRecord:
    """One image of a set. ``labels`` is None for an unconditional model."""

    model: str
    version: int
    seed: int
    index: int
    labels: dict[str, str] | None
    url: str
    """Permanent address: path and query."""
    image: bytes
    """A PNG file; for npy, the bytes of the pixels."""

    @property
    def key(self) -> str:
        """Name of the image in every format: ``anime-faces-2-3-00000005``."""
        return f"{self.model}-{self.version}-{self.seed}-{self.index:08d}"

    @property
    def file_name(self) -> str:
        return f"{self.key}.png"

    def values(self, attributes: Sequence[str]) -> list[str]:
        """Labels in the order of ``attributes``; empty for an unconditional model."""
        return [self.labels[name] for name in attributes] if self.labels else []

    def description(self) -> dict[str, Any]:
        """Fields without the image, for JSON."""
        return {
            "model": self.model,
            "version": self.version,
            "seed": self.seed,
            "index": self.index,
            "labels": self.labels,
            "url": self.url,
        }


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""First and last bytes of a PNG file (PNG specification, 5.2 and 11.2.4)."""

FILE_NAME, ADDRESS = "file_name", "address"
"""Columns of ``metadata.csv`` besides the attributes."""


class ArchiveWriter(Protocol):
    """Writer of one file, piece by piece. Without ``end`` readers see that the file is truncated.

    Call ``close`` in any case.
    """

    def add(self, records: Sequence[ImageRecord], /) -> bytes:
        """Bytes that can be written after these images; some may stay buffered."""
        ...

    def end(self) -> Iterator[bytes]:
        """Remaining bytes of the file."""
        ...

    def close(self) -> None: ...


def record_of(frame: ImageInfo, image: bytes) -> ImageRecord:
    """Record of an image with an address."""
    address = frame.address
    assert address is not None
    return ImageRecord(
        address.model,
        address.version,
        address.seed,
        address.index,
        frame.labels,
        address.url(),
        image,
    )


def columns(attributes: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Column names for the attributes; ``_`` is appended to names in ``ours``."""
    named: list[str] = []
    for name in attributes:
        while name in ours or name in named:
            name += "_"
        named.append(name)
    return named


def table_header(attributes: Sequence[str], *more: str) -> bytes:
    """Header line of a CSV table of images; ``more``: columns at the end."""
    ours = (ADDRESS, *more)
    return _line([FILE_NAME, *columns(attributes, (FILE_NAME, *ours)), *ours])


def table_row(
    record: ImageRecord, attributes: Sequence[str], path: str | None = None, *more: str
) -> bytes:
    """CSV line of an image; ``path`` of its file if that is in a folder."""
    return _line([path or record.file_name, *record.values(attributes), record.url, *more])


def _line(fields: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue().encode()
