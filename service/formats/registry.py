"""The formats of sets, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.formats.npy import Npy
from service.formats.parquet import Parquet
from service.formats.records import ArchiveWriter
from service.formats.webdataset import Webdataset
from service.formats.zip import Zip

SUFFIXES = {"npy": ".npy", "zip": ".zip", "webdataset": ".tar", "parquet": ".parquet"}


def open_writer(
    format_: str, attributes: Sequence[str], shape: Sequence[int]
) -> ArchiveWriter[Any]:
    """Of pixels ``[H, W, channels]`` as bytes for npy, of records for all others.

    ``shape`` is ``[N, H, W, channels]``, which only npy tells.
    """
    if format_ == "npy":
        return Npy(shape)
    if format_ == "webdataset":
        return Webdataset()
    return Zip(attributes) if format_ == "zip" else Parquet(attributes)
