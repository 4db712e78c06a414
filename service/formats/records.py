"""Sets of images as one file each, in the formats that data loaders read.

A file is made as its images come, and holds the same images whatever the format: under the same
names, with the same labels and addresses. The same records make the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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
    """Its address, path and query."""
    image: bytes
    """A PNG file."""

    @property
    def key(self) -> str:
        """What the image is called in every set: ``anime-faces-2-3-00000005``."""
        return f"{self.model}-{self.version}-{self.seed}-{self.index:08d}"

    @property
    def file_name(self) -> str:
        return f"{self.key}.png"

    def values(self, attributes: Sequence[str]) -> list[str]:
        """Its labels, in the order of ``attributes``."""
        return [self.labels[name] for name in attributes] if self.labels else []

    def description(self) -> dict[str, Any]:
        """All but the image, for JSON."""
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
"""What a PNG file begins and ends with (PNG specification, 5.2 and 11.2.4)."""

FILE_NAME, ADDRESS = "file_name", "address"
"""Columns of ``metadata.csv`` beside the attributes."""

Item = TypeVar("Item", contravariant=True)


class ArchiveWriter(Protocol[Item]):
    """Makes the file, piece by piece. A file that was not brought to its ``end`` is seen to be cut.

    ``close`` it whatever happens.
    """

    def add(self, items: Sequence[Item], /) -> bytes:
        """What can be written now, of these images and of those before."""
        ...

    def end(self) -> Iterator[bytes]:
        """The rest."""
        ...

    def close(self) -> None: ...


def record_of(frame: ImageInfo, image: bytes = b"") -> ImageRecord:
    """An image that has an address; tables need no ``image``, its PNG file."""
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
    """The columns of a table for the attributes: one called like one of ``ours`` gets a ``_``."""
    named: list[str] = []
    for name in attributes:
        while name in ours or name in named:
            name += "_"
        named.append(name)
    return named


def table_header(attributes: Sequence[str]) -> bytes:
    """The first line of a table of images."""
    return _line([FILE_NAME, *columns(attributes, (FILE_NAME, ADDRESS)), ADDRESS])


def table_row(record: ImageRecord, attributes: Sequence[str], folder: str = "") -> bytes:
    """The line of an image whose file lies in ``folder``."""
    name = f"{folder}/{record.file_name}" if folder else record.file_name
    return _line([name, *record.values(attributes), record.url])


def _line(fields: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue().encode()
