"""Formats of responses and files, one row each: name, media type, file suffix and writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.core.set_request import SET_DEFAULTS, SetRequest
from service.errors import InvalidRequest
from service.formats.layout import Layout, Values
from service.formats.npy import Npy
from service.formats.parquet import Parquet
from service.formats.records import ArchiveWriter
from service.formats.webdataset import Webdataset
from service.formats.zip import Zip

Open = Callable[[Layout, Sequence[int]], ArchiveWriter]
"""Writer for a layout, and a shape ``[N, H, W, channels]``, which only npy uses."""


@dataclass(frozen=True)
class Format:
    name: str
    media_type: str
    suffix: str
    open_writer: Open | None = None
    """None if the format cannot hold a dataset."""
    fields: tuple[str, ...] = ()
    """Fields of ``SetRequest`` that the writer obeys."""


FORMATS = (
    Format("json", "application/json", ".json"),
    Format("png", "image/png", ".png"),
    Format("webp", "image/webp", ".webp"),
    Format("jpeg", "image/jpeg", ".jpeg"),
    Format("gif", "image/gif", ".gif"),
    Format("npy", "application/x-npy", ".npy", lambda layout, shape: Npy(shape)),
    Format(
        *("zip", "application/zip", ".zip"),
        lambda layout, shape: Zip(layout),
        ("layout", "by", "splits"),
    ),
    Format(
        *("webdataset", "application/x-tar", ".tar"),
        lambda layout, shape: Webdataset(layout),
        ("by", "splits"),
    ),
    Format(
        *("parquet", "application/vnd.apache.parquet", ".parquet"),
        lambda layout, shape: Parquet(layout),
        ("splits", "labels"),
    ),
)
MEDIA_TYPES: Mapping[str, str] = {row.name: row.media_type for row in FORMATS}
SUFFIXES: Mapping[str, str] = {row.name: row.suffix for row in FORMATS if row.open_writer}
"""Suffixes of the formats that hold a dataset."""
FOLDER = Format("folder", "", ".csv", fields=("layout", "by", "splits"))
"""Images as files on a disk, in a folder for each class, and their table: not an answer of HTTP."""
FILE_FORMATS = (*SUFFIXES, FOLDER.name)
"""Formats that a data set can have on a disk."""
_ROWS = {row.name: row for row in (*FORMATS, FOLDER)}


def default_format(layout: str) -> str:
    """Format of a data set on a disk whose plan names none."""
    return FOLDER.name if layout == "folders" else "webdataset"


def layout_of(request: SetRequest, format_: str, values: Values) -> Layout:
    """Layout of a set, for a model whose attributes have these ``values``.

    Raises ``InvalidRequest`` for a field that means nothing in the format, or for the model.
    """
    check_fields(request, format_)
    return Layout.of(request, values)


def check_fields(request: SetRequest, format_: str) -> None:
    """Raise ``InvalidRequest`` for a field of a set that means nothing in the format."""
    obeyed = _ROWS[format_].fields
    for name, default in SET_DEFAULTS.items():
        if name not in obeyed and getattr(request, name) != default:
            formats = [row.name for row in FORMATS if name in row.fields]
            raise InvalidRequest(
                f"{name}: means nothing in the format {format_}; it is for {', '.join(formats)}",
                kind="Fields disagree",
                formats=formats,
            )
    if format_ == FOLDER.name and request.layout != "folders":
        raise InvalidRequest(
            "layout: images as files are in a folder for each class: use the layout 'folders', or "
            "the format zip",
            kind="Fields disagree",
        )
    if request.by is not None and not shows_class(format_, request.layout):
        raise InvalidRequest(
            "by: means nothing in a zip with the layout 'table', whose metadata.csv has all "
            "attributes; ask for the layout 'folders'",
            kind="Fields disagree",
        )


def shows_class(format_: str, layout: str) -> bool:
    """True if the files of a set show the class that the field ``by`` makes."""
    return "by" in _ROWS[format_].fields and (format_ != "zip" or layout == "folders")


def open_writer(name: str, layout: Layout, shape: Sequence[int]) -> ArchiveWriter:
    """Writer of a dataset format. ``shape`` is ``[N, H, W, channels]``, which only npy uses."""
    opened = _ROWS[name].open_writer
    assert opened is not None
    return opened(layout, shape)
