"""Images beside a ``metadata.csv``: the layout that Hugging Face calls imagefolder.

``metadata.csv`` has a column ``file_name`` (a path relative to the csv) and one column for each
attribute.
"""

from __future__ import annotations

import csv
import io
import posixpath
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.data.archive import Archive, open_archive, shallowest
from training.data.dataset import Dataset, encode_labels
from training.errors import DataError

METADATA = "metadata.csv"
FILE_NAME = "file_name"
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, Image.DecompressionBombError),  # Pillow
    *(zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError),  # zipfile
)
"""What comes of a damaged, encrypted or exotic file."""

Row: TypeAlias = tuple[int, list[str]]
"""A line number of the csv, counted from 1, and its fields."""


def read(path: Path, attributes: Sequence[str] | None = None) -> Dataset:
    """Read the folder or zip at ``path``.

    ``attributes`` names the columns to learn; left out, every column but ``file_name`` is one.
    Images keep their size, which must be the same for all; they are grey if all files are, else
    RGB. Raises ``DataError`` with everything that is wrong.
    """
    archive = open_archive(path)
    metadata = shallowest(archive.names(), METADATA)
    if metadata is None:
        raise DataError(str(path), [f"has no {METADATA}"])

    source, problems = f"{path}/{metadata}", list[str]()
    try:
        header, rows = _read_table(archive.read(metadata), source, problems)
    except (csv.Error, *UNREADABLE) as error:
        raise DataError(source, [f"cannot be read: {error}"]) from error
    wanted = _choose_columns(header, attributes, source)
    columns = {name: [fields[header.index(name)] for _, fields in rows] for name in wanted}
    problems += _label_problems(columns, rows)
    images = _read_images(
        archive, posixpath.dirname(metadata), header.index(FILE_NAME), rows, problems
    )
    if problems:
        raise DataError(source, problems)
    if columns:
        labels, vocabulary = encode_labels(columns, source)
    else:
        labels, vocabulary = np.zeros((len(images), 0), dtype=np.int64), ()
    return Dataset(path.resolve().stem, images, labels, vocabulary)


def _read_table(data: bytes, source: str, problems: list[str]) -> tuple[list[str], list[Row]]:
    """The header and the rows that are whole; ragged and duplicate rows become problems."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(source, [f"is not UTF-8: {error}"]) from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(reader, [])]
    if FILE_NAME not in header:
        raise DataError(source, [f"line 1: no column {FILE_NAME!r} among {header}"])
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(source, [f"line 1: column {name!r} stands twice" for name in repeated])

    rows: list[Row] = []
    first_line: dict[str, int] = {}
    for fields in reader:
        line = reader.line_num
        if not fields:
            continue
        if len(fields) != len(header):
            problems.append(f"line {line}: {len(fields)} fields, the header has {len(header)}")
            continue
        fields = [field.strip() for field in fields]
        name = fields[header.index(FILE_NAME)]
        if name in first_line:
            problems.append(f"line {line}: {name!r} stands on line {first_line[name]} already")
            continue
        first_line[name] = line
        rows.append((line, fields))
    if not rows and not problems:
        problems.append("has no rows")
    return header, rows


def _choose_columns(header: list[str], asked: Sequence[str] | None, source: str) -> list[str]:
    available = [name for name in header if name != FILE_NAME]
    if asked is None:
        return available
    unknown = [name for name in asked if name not in available]
    if unknown:
        raise DataError(
            source,
            [f"line 1: no column {name!r}; there are: {', '.join(available)}" for name in unknown],
        )
    return list(asked)


def _label_problems(columns: dict[str, list[str]], rows: list[Row]) -> list[str]:
    problems = []
    for name, column in columns.items():
        counts = Counter(column)
        if len(counts) == 1 and len(column) > 1:
            problems.append(f"column {name!r}: only one value, {column[0]!r}: nothing to learn")
            continue
        once = [value for value, count in counts.items() if count == 1 and value]
        if len(once) > len(column) / 2:
            problems.append(
                f"column {name!r}: {len(once)} of {len(column)} values stand only once: this is "
                "no label (name the columns to learn with --attributes)"
            )
            once = []
        for (line, _), value in zip(rows, column, strict=True):
            if not value:
                problems.append(f"line {line}: no value for {name!r}")
            elif value in once:
                problems.append(f"line {line}: {name} {value!r} stands only here: misspelt?")
    return problems


def _read_images(
    archive: Archive, folder: str, name_column: int, rows: list[Row], problems: list[str]
) -> npt.NDArray[np.uint8]:
    """All images ``[N, H, W, channels]``; what cannot be read becomes a problem."""
    present = set(archive.names())
    images: list[tuple[int, str, Image.Image]] = []
    for line, fields in rows:
        name = fields[name_column]
        location = posixpath.normpath(posixpath.join(folder, name))
        if location not in present:
            problems.append(f"line {line}: no image {name!r}")
            continue
        try:
            image = Image.open(io.BytesIO(archive.read(location)))
            image.load()
        except UNREADABLE as error:
            problems.append(f"line {line}: {name!r} is not a readable image: {error}")
            continue
        images.append((line, name, _on_white(image)))

    sizes = Counter(image.size for _, _, image in images)
    usual = max(sizes, key=lambda size: sizes[size], default=None)
    problems += [
        f"line {line}: {name!r} is {image.width}x{image.height}, the others are "
        f"{usual[0]}x{usual[1]}"
        for line, name, image in images
        if usual is not None and image.size != usual
    ]
    if problems:
        return np.zeros((0, 1, 1, 1), dtype=np.uint8)
    grey = all(image.mode == "L" for _, _, image in images)
    arrays = [np.asarray(image if grey else image.convert("RGB")) for _, _, image in images]
    stacked = np.stack(arrays)
    return stacked[..., None] if grey else stacked


def _on_white(image: Image.Image) -> Image.Image:
    """Grey stays grey and the rest becomes RGB; what is transparent becomes white."""
    if image.mode in ("L", "1"):
        return image.convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
