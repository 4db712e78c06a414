"""Formats of responses and files, one row each: name, media type, file suffix and writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.formats.npy import Npy
from service.formats.parquet import Parquet
from service.formats.records import ArchiveWriter
from service.formats.webdataset import Webdataset
from service.formats.zip import Zip

Open = Callable[[Sequence[str], Sequence[int]], ArchiveWriter[Any]]
"""Writer for attributes and a shape ``[N, H, W, channels]``, which only npy uses."""


@dataclass(frozen=True)
class Format:
    name: str
    media_type: str
    suffix: str
    open_writer: Open | None = None
    """None if the format cannot hold a dataset."""


FORMATS = (
    Format("json", "application/json", ".json"),
    Format("png", "image/png", ".png"),
    Format("webp", "image/webp", ".webp"),
    Format("jpeg", "image/jpeg", ".jpeg"),
    Format("gif", "image/gif", ".gif"),
    Format("npy", "application/x-npy", ".npy", lambda attributes, shape: Npy(shape)),
    Format("zip", "application/zip", ".zip", lambda attributes, shape: Zip(attributes)),
    Format("webdataset", "application/x-tar", ".tar", lambda attributes, shape: Webdataset()),
    Format(
        "parquet",
        "application/vnd.apache.parquet",
        ".parquet",
        lambda attributes, shape: Parquet(attributes),
    ),
)
MEDIA_TYPES: Mapping[str, str] = {row.name: row.media_type for row in FORMATS}
SUFFIXES: Mapping[str, str] = {row.name: row.suffix for row in FORMATS if row.open_writer}
"""Suffixes of the formats that hold a dataset."""
_WRITERS = {row.name: row.open_writer for row in FORMATS if row.open_writer}


def open_writer(name: str, attributes: Sequence[str], shape: Sequence[int]) -> ArchiveWriter[Any]:
    """Writer of a dataset format. It takes ``ImageRecord``s, or for npy the bytes of pixels.

    ``shape`` is ``[N, H, W, channels]``, which only npy uses.
    """
    return _WRITERS[name](attributes, shape)
