"""Tables that say which labels belong to which image file, in whatever form they have.

CSV with any separator, JSON lines, Parquet without images, StyleGAN's ``dataset.json`` and CelebA's
list as Kaggle has it become the same: a header and rows of text.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.archive import Archive
from training.data.labelling import NO_YES
from training.data.packed import UNREADABLE_ARCHIVE
from training.data.text import compose, decode, read_rows, slashes
from training.errors import DataError

FILE_COLUMNS = (
    *("file_name", "filename", "file", "image_path", "filepath", "file_path", "path"),
    *("image_file_name", "image_file", "image_name", "image", "img", "image_id", "img_path"),
)
"""Columns that name the image, best first; others count if their values are names of images."""
CELEBA = tuple(
    f"{name}.csv" for name in ("list_attr_celeba", "list_eval_partition", "list_bbox_celeba")
)
NAMED = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
"""Tables that Hugging Face's imagefolder knows, which are tables whatever they hold."""
STYLEGAN = "dataset.json"
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
MAX_SHOWN = 10
"""Columns in a message; tables of pixels have hundreds."""


@dataclass(frozen=True)
class Table:
    """Rows of text, and where they stand in the source."""

    name: str
    header: list[str]
    rows: list[tuple[int, list[str]]]
    """Number of the line, counted from 1, and the fields."""
    file_column: int
    problems: list[str]
    unread: dict[str, str]
    """Columns that hold no text, to the reason."""


def is_table(name: str) -> bool:
    """True if ``name`` may be a table, by its ending."""
    base = name.lower().rpartition("/")[2]
    if base in CELEBA:
        return False
    return base in (*NAMED, STYLEGAN) or base.endswith(ENDINGS)


def is_named_table(name: str) -> bool:
    return name.lower().rpartition("/")[2] in NAMED


def read_table(archive: Archive, name: str, encoding: str | None, images: set[str]) -> Table:
    """The table ``name``; ``images`` are names and stems of images, to find the column of files.

    Raises ``DataError`` if it cannot be read, or names no files.
    """
    source = f"{archive.path}/{name}"
    base = name.lower().rpartition("/")[2]
    problems: list[str] = []
    unread: dict[str, str] = {}
    separator = ""
    if base.endswith(".parquet"):
        header, rows = _from_parquet(archive.read(name), source, unread)
    else:
        text = decode(archive.read(name), source, encoding)
        if base == STYLEGAN:
            header, rows = _from_stylegan(text, source)
        elif base.endswith((".jsonl", ".ndjson")):
            header, rows = _from_lines(text, source, problems, unread)
        else:
            lines, separator = read_rows(text, source)
            header, rows = (lines[0][1], lines[1:]) if lines else ([], [])
    header = [compose(name.strip()) for name in header]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    column = _file_column(header, rows, images)
    if (image := next((x for x in header if "." in x and _is_known(x, images)), None)) is not None:
        raise DataError(
            source, [f"line 1: {image!r} is an image: the first line has to name the columns"]
        )
    if column is None and problems:
        raise DataError(source, problems)
    if column is None:
        found = f" (separated by {separator})" if separator and separator != "comma" else ""
        raise DataError(source, [f"line 1: no column 'file_name' among {_shown(header)}{found}"])
    if repeated:
        raise DataError(source, [f"line 1: column {name!r} stands twice" for name in repeated])
    whole = _whole_rows(header, rows, column, problems)
    return Table(name, header, whole, column, problems, unread)


def _shown(header: list[str]) -> str:
    more = f" and {len(header) - MAX_SHOWN} more" if len(header) > MAX_SHOWN else ""
    return f"{header[:MAX_SHOWN]}{more}"


def mismatch(archive: Archive, name: str, encoding: str | None, images: set[str]) -> str | None:
    """Reason why ``name`` is no table of images, by its first rows; None if it is one."""
    try:
        table = read_table(archive, name, encoding, images)
    except DataError as error:
        return f"a table that cannot be used: {error.problems[0]}"
    except UNREADABLE_ARCHIVE as error:
        return f"a table that cannot be read: {error}"
    first = [fields[table.file_column] for _, fields in table.rows[:20]]
    if not any(_is_known(value, images) for value in first):
        return "a table, but not of these images" + (f", such as {first[0]!r}" if first else "")
    return None if len(table.header) > 1 else "a table without a column of labels"


def stems_of(archive: Archive) -> set[str]:
    """File names without folders, and these without their endings."""
    bases = {name.rpartition("/")[2] for name in archive.names}
    return bases | {base.rpartition(".")[0] for base in bases if "." in base}


def _is_known(value: str, images: set[str]) -> bool:
    return compose(slashes(value)).rpartition("/")[2] in images


def _file_column(
    header: Sequence[str], rows: Sequence[tuple[int, list[str]]], images: set[str]
) -> int | None:
    lower = [name.lower() for name in header]
    for name in FILE_COLUMNS:
        if name in lower:
            return lower.index(name)
    first = rows[:20]
    for column in range(len(header)):
        values = [fields[column] for _, fields in first if len(fields) == len(header)]
        if values and all(_is_known(value, images) for value in values) and len(header) > 1:
            return column
    return None


def _whole_rows(
    header: list[str], rows: list[tuple[int, list[str]]], column: int, problems: list[str]
) -> list[tuple[int, list[str]]]:
    """Rows without the ragged and duplicate ones, which become problems."""
    whole: list[tuple[int, list[str]]] = []
    first_line: dict[str, int] = {}
    for line, fields in rows:
        if len(fields) != len(header):
            problems.append(f"line {line}: {len(fields)} fields, the header has {len(header)}")
            continue
        name = fields[column]
        if name in first_line:
            problems.append(f"line {line}: {name!r} stands on line {first_line[name]} already")
            continue
        first_line[name] = line
        whole.append((line, fields))
    if not whole and not problems:
        problems.append("has no rows")
    return whole


def _from_lines(
    text: str, source: str, problems: list[str], unread: dict[str, str]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    if text.lstrip().startswith("["):
        raise DataError(source, ["is one JSON array: write each object on a line of its own"])
    header: list[str] = []
    records: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number}: is not JSON: {error}")
            continue
        if not isinstance(record, dict):
            problems.append(f"line {number}: is not a JSON object")
            continue
        flat = _flat(record)
        header += [name for name in flat if name not in header]
        records.append((number, flat))
    rows = []
    for name in list(header):
        values = [record[name] for _, record in records if record.get(name) is not None]
        if any(isinstance(value, list | dict) for value in values):
            header.remove(name)
            unread[name] = "a list or an object"
        elif len({isinstance(value, bool) for value in values}) > 1:
            problems.append(f"{name!r} is true or false in some lines, but not in others")
    for number, record in records:
        rows.append((number, [as_text(record.get(name)) for name in header]))
    return header, rows


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """``labels: {hair: red}`` as ``hair: red``."""
    labels = record.get("labels")
    if isinstance(labels, dict):
        record = {name: value for name, value in record.items() if name != "labels"} | labels
    return record


def _from_stylegan(text: str, source: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """``{"labels": [["00000/img00000000.png", 3], ...]}``, or the same as an object."""
    try:
        labels = json.loads(text)["labels"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(source, [f"is no dataset.json of StyleGAN's tools: {error!r}"]) from error
    if labels is None:
        raise DataError(source, ["has no labels"])
    pairs = list(labels.items() if isinstance(labels, dict) else labels)
    rows = []
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or isinstance(pair[1], dict):
            raise DataError(source, [f"label {number} is not [file name, class]"])
        value = pair[1]
        if isinstance(value, list):  # a one-hot vector
            if sorted(value) != [0] * (len(value) - 1) + [1]:
                raise DataError(source, [f"label {number} is a vector, not a class"])
            value = value.index(1)
        rows.append((number, [str(pair[0]), as_text(value)]))
    return ["file_name", "label"], rows


def _from_parquet(
    data: bytes, source: str, unread: dict[str, str]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise DataError(source, [f"is not a readable Parquet file: {error}"]) from error
    header, columns = [], []
    for name in table.column_names:
        values = table.column(name).to_pylist()
        if any(isinstance(value, list | dict | bytes) for value in values):
            unread[name] = str(table.schema.field(name).type)
            continue
        header.append(name)
        columns.append([as_text(value) for value in values])
    return header, [(n, list(row)) for n, row in enumerate(zip(*columns, strict=True), start=1)]


def as_text(value: Any) -> str:
    """One value of JSON or Arrow as the text of a label: no and yes, and whole numbers as such."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool):
        return NO_YES[value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
