"""Images beside a ``metadata.csv``: the layout that Hugging Face calls imagefolder.

``metadata.csv`` has a column ``file_name`` (a path relative to the csv) and one column for each
attribute.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

from training.data.archive import Archive, shallowest
from training.data.dataset import Dataset
from training.data.decoding import UNREADABLE, Framing, Picture, build
from training.data.labelling import choose, label_problems
from training.errors import DataError

METADATA = "metadata.csv"
FILE_NAME = "file_name"

Row: TypeAlias = tuple[int, list[str]]
"""A line number of the csv, counted from 1, and its fields."""


def recognises(archive: Archive) -> bool:
    return shallowest(archive.names, METADATA) is not None


def read(archive: Archive, attributes: Sequence[str] | None, framing: Framing) -> Dataset:
    """Read the folder or zip.

    ``attributes`` names the columns to learn; left out, every column but ``file_name`` is one.
    Raises ``DataError`` with everything that is wrong.
    """
    metadata = shallowest(archive.names, METADATA)
    if metadata is None:
        raise DataError(str(archive.path), [f"has no {METADATA}"])
    source, problems = f"{archive.path}/{metadata}", list[str]()
    try:
        header, rows = _read_table(archive.read(metadata), source, problems)
    except (csv.Error, *UNREADABLE) as error:
        raise DataError(source, [f"cannot be read: {error}"]) from error
    wanted = choose([name for name in header if name != FILE_NAME], attributes, source)
    columns = {name: [fields[header.index(name)] for _, fields in rows] for name in wanted}
    problems += label_problems(columns, [f"line {line}" for line, _ in rows])

    name_column = header.index(FILE_NAME)
    names = [fields[name_column] for _, fields in rows]
    pictures = _pictures(archive, posixpath.dirname(metadata), name_column, rows, problems)
    name = archive.path.resolve().stem
    return build(name, source, pictures, names, columns, framing, problems)


def _pictures(
    archive: Archive, folder: str, name_column: int, rows: list[Row], problems: list[str]
) -> Iterator[Picture]:
    """The images that are there; those that are not become problems."""
    present = set(archive.names)
    for line, fields in rows:
        name = fields[name_column]
        location = posixpath.normpath(posixpath.join(folder, name))
        if location in present:
            yield Picture(f"line {line}: {name!r}", partial(archive.read, location))
        else:
            problems.append(f"line {line}: no image {name!r}")


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
