"""Images in Parquet files, as Hugging Face writes them.

A column ``image`` holds the encoded files, alone or in a struct with their paths; columns of text,
whole numbers or yes/no are attributes, and so are folders such as ``label=cat``. The names of
classes are in the schema, as JSON of Hugging Face's ``datasets``; each shard has its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from training.data import split_columns, splits
from training.data.archive import Archive
from training.data.contents import count_others, head_of
from training.data.dataset import Dataset
from training.data.decoding import UNREADABLE, Picture, build
from training.data.imagefolder import OURS
from training.data.labelling import choose, label_problems
from training.data.options import Options
from training.data.reading import Reading
from training.data.sniffing import HEAD_BYTES, is_image, not_text
from training.data.tables import as_text, is_named_table
from training.errors import DataError

SUFFIX = ".parquet"
IMAGE = "image"
ROWS_AT_ONCE = 256
PAGE_BUFFER = 2**20
SHARD = re.compile(r"(.*-)(\d+)-of-(\d{1,6})(\..*)")


@dataclass(frozen=True)
class Shard:
    name: str
    file: Any  # pyarrow has no types

    def locations(self, alone: bool) -> list[str]:
        """``row 7`` for each row, counted from 0, after the file's name unless it is ``alone``."""
        prefix = "" if alone else f"{self.name} "
        return [f"{prefix}row {row}" for row in range(self.file.metadata.num_rows)]

    @cached_property
    def features(self) -> dict[str, Any]:
        """Notes of ``datasets`` on each column: ``{"label": {"_type": "ClassLabel", ...}}``.

        Empty in files of other programs.
        """
        metadata = self.file.schema_arrow.metadata or {}
        try:
            found = json.loads(metadata[b"huggingface"])["info"]["features"]
        except (KeyError, ValueError, TypeError):
            return {}
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}

    @cached_property
    def hive(self) -> dict[str, str]:
        """Columns in the folders of the path: ``label=cat/part-0.parquet``."""
        parts = (part.partition("=") for part in self.name.split("/")[:-1] if "=" in part)
        return {name: unquote(value) for name, _, value in parts}

    def classes(self, name: str) -> list[str] | None:
        """Names of the classes in this file, whose order may be its own."""
        feature = self.features.get(name, {})
        names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
        return [str(each) for each in names] if isinstance(names, list) else None

    def kind(self, name: str) -> str:
        """Type of a column, without the widths of numbers, and whether its classes have names."""
        kind = self.file.schema_arrow.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_integer(kind):
            return "numbers of named classes" if self.classes(name) else "int"
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return "double"
        if _is_label(kind) and not pa.types.is_boolean(kind):
            return "string"
        return str(kind)

    def values(self, name: str) -> list[str | None]:
        """A column as text, empty where a value is missing; None for what can be no label."""
        if not _is_label(self.file.schema_arrow.field(name).type):
            return [None]
        found = self.file.read(columns=[name]).column(name).to_pylist()
        classes = self.classes(name)
        if classes is None:
            if any(isinstance(v, float | Decimal) and v == v and v != int(v) for v in found):
                return [None]
            return [_text(value) for value in found]
        values: list[str | None] = []
        for value in found:
            if value is None or value == -1:  # how `datasets` writes that there is no label
                values.append("")
            else:
                values.append(classes[value] if value in range(len(classes)) else str(value))
        return values


def _text(value: Any) -> str:
    if isinstance(value, float | Decimal):
        return "" if value != value else str(int(value))
    return as_text(value)


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    if shards_of(archive):
        return None
    return f"no *{SUFFIX} with images"


def shards_of(archive: Archive) -> list[str]:
    names = (name for name in archive.names if name.lower().endswith(SUFFIX))
    return [name for name in names if not is_named_table(name)]


def read(archive: Archive, options: Options) -> Dataset:
    """Read a file, or all shards in a folder or zip: those for training if there are splits.

    Without ``options.attributes``, all columns that can be labels are learnt. Raises ``DataError``
    with everything that is wrong.
    """
    source, problems, reading = str(archive.path), list[str](), archive.reading
    found = shards_of(archive)
    selection = splits.select(found, source, options.split_of(found), stems=len(found) > 1)
    for reason, names in selection.left_out.items():
        reading.leave_out(reason, names)
    reading.layout, reading.split = "Parquet", reading.split or selection.split
    _check_copies([rest for _, rest in selection.kept], options, source)
    for name in _missing_shards([name for name, _ in selection.kept]):
        reading.note("shards that are not there", name)
    with ExitStack() as stack:
        shards = [_open(archive, name, stack) for name, _ in selection.kept]
        count_others(archive, set(found))
        schema = shards[0].file.schema_arrow
        for shard in shards[1:]:
            if set(shard.file.schema_arrow.names) != set(schema.names):
                raise DataError(source, [f"{shard.name} has other columns than {shards[0].name}"])
        image = _image_column(shards[0], source)
        locations = [location for shard in shards for location in shard.locations(len(shards) == 1)]
        try:
            columns = _label_columns(shards, image, options, locations, source, problems, reading)
            rows = _of_split(columns, options, reading, locations, source)
            facts = OURS if {"address", "url"} & set(columns) else ()
            available = [n for n in columns if n not in facts and n not in reading.unread]
            wanted = choose(available, options.attributes, source)
            if locations and not wanted and options.attributes is None:
                raise options.unlabelled(source, "has no column of labels", reading)
            kept_columns = {
                name: [v for v, kept in zip(columns[name], rows, strict=True) if kept]
                for name in wanted
            }
            names = [location for location, kept in zip(locations, rows, strict=True) if kept]
            problems += _problems_of(shards, wanted, locations, rows)
            problems += label_problems(kept_columns, names)
            pictures = _pictures(shards, image, locations, rows, problems)
            stem = archive.path.resolve().stem
            return build(stem, source, pictures, names, kept_columns, options, problems, reading)
        except (pa.ArrowException, OSError) as error:
            raise DataError(source, [f"is a damaged Parquet file: {error}"]) from error


def _check_copies(names: list[str], options: Options, source: str) -> None:
    """Raise ``DataError`` for folders that hold shards of the same names: `datasets`' configs."""
    by_folder: dict[str, set[str]] = {}
    for name in names:
        folder, slash, rest = name.partition("/")
        by_folder.setdefault(folder if slash and "=" not in folder else "", set()).add(rest)
    folders = by_folder.keys() - {""}
    if options.split is not None or len(folders) < 2 or splits.are_parts(folders):
        return
    if set.intersection(*(by_folder[folder] for folder in folders)):
        raise splits.unclear(source, sorted(folders))


def _missing_shards(names: list[str]) -> list[str]:
    """Shards that names such as ``train-00000-of-00003.parquet`` imply, and that are not there."""
    missing = []
    for match in filter(None, map(SHARD.fullmatch, names)):
        before, number, count, after = match.groups()
        width = len(number)
        missing += [f"{before}{n:0{width}}-of-{count}{after}" for n in range(int(count))]
    return sorted(set(missing) - set(names))


def _label_columns(
    shards: list[Shard],
    image: str,
    options: Options,
    locations: list[str],
    source: str,
    problems: list[str],
    reading: Reading,
) -> dict[str, list[str]]:
    """Every column that can be a label, as text; the others are noted in ``reading``."""
    columns: dict[str, list[str]] = {}
    for name in shards[0].file.schema_arrow.names:
        if name == image:
            continue
        kinds = {shard.kind(name): shard for shard in shards}
        if len(kinds) > 1:
            (one, first), (other, second), *_ = kinds.items()
            raise DataError(
                source, [f"column {name!r} is {one} in {first.name}, but {other} in {second.name}"]
            )
        values = [value for shard in shards for value in shard.values(name)]
        if values and None not in values:
            columns[name] = values  # type: ignore[assignment]
        else:
            field = shards[0].file.schema_arrow.field(name)
            reading.unread[name] = str(field.type)
    for key in shards[0].hive:
        if key not in columns and all(key in shard.hive for shard in shards):
            columns[key] = [
                shard.hive[key] for shard in shards for _ in range(shard.file.metadata.num_rows)
            ]
    return columns


def _of_split(
    columns: dict[str, list[str]],
    options: Options,
    reading: Reading,
    locations: list[str],
    source: str,
) -> list[bool]:
    """Rows of the split that a column names; all without such a column."""
    found = split_columns.find(columns, options, source)
    if found is None:
        if options.split not in (None, splits.NO_SPLIT) and not reading.split:
            raise DataError(source, [f"has no split {options.split!r}, nor a column of splits"])
        return [True] * len(locations)
    reading.unread[found.column] = "says which split a row is of"
    gone = [location for location, kept in zip(locations, found.kept, strict=True) if not kept]
    reading.leave_out(f"row not of split {found.split}", gone)
    reading.split = found.split
    return found.kept


def _problems_of(
    shards: list[Shard], wanted: Sequence[str], locations: list[str], rows: list[bool]
) -> list[str]:
    """Class numbers beyond the names that the file has for them."""
    found, starts = [], [0]
    for shard in shards:
        starts.append(starts[-1] + shard.file.metadata.num_rows)
    for name in wanted:
        for shard, start in zip(shards, starts, strict=False):
            if name not in shard.file.schema_arrow.names or not (names := shard.classes(name)):
                continue
            column = shard.file.read(columns=[name]).column(name).to_pylist()
            for at, value in enumerate(column, start):
                if rows[at] and value not in (None, -1, *range(len(names))):
                    found.append(
                        f"{locations[at]}: {name} is {value!r}, but there are {len(names)} names"
                    )
    return found


def _open(archive: Archive, name: str, stack: ExitStack) -> Shard:
    try:
        file = stack.enter_context(archive.open(name))
        # Row groups page by page: pyarrow would hold each as a whole, which may be the file.
        return Shard(name, pq.ParquetFile(file, buffer_size=PAGE_BUFFER, pre_buffer=False))
    except (pa.ArrowException, *UNREADABLE) as error:
        head = head_of(archive, name)
        why = error if head.startswith(b"PAR1") else not_text(head) or error
        raise DataError(
            str(archive.path), [f"{name} is not a readable Parquet file: {why}"]
        ) from error


def _image_column(shard: Shard, source: str) -> str:
    """The column of images: ``image``, or the one that `datasets` noted, or that holds images."""
    schema = shard.file.schema_arrow
    features = {name: feature.get("_type") for name, feature in shard.features.items()}
    found = [name for name in schema.names if features.get(name) == "Image"]
    if IMAGE in schema.names:
        found = [IMAGE]
    found = found or [name for name in schema.names if _holds_images(shard, name)]
    if not found:
        raise DataError(source, [f"no column {IMAGE!r}; there are: {', '.join(schema.names)}"])
    if len(found) > 1:
        raise DataError(
            source, [f"several columns of images: {', '.join(found)}; call one of them {IMAGE!r}"]
        )
    kind = schema.field(found[0]).type
    if not _is_bytes(kind.field("bytes").type if _has_bytes(kind) else kind):
        raise DataError(source, [f"column {found[0]!r} holds {kind}, not encoded images"])
    return found[0]


def _holds_images(shard: Shard, name: str) -> bool:
    """True if the first value of a column of bytes is an image."""
    kind = shard.file.schema_arrow.field(name).type
    if not (_has_bytes(kind) or _is_bytes(kind)):
        return False
    for batch in shard.file.iter_batches(1, columns=[name]):
        value = batch.column(0)[0].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        return is_image((content or b"")[:HEAD_BYTES])
    return False


def _has_bytes(kind: Any) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _is_bytes(kind: Any) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _is_label(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_decimal),
    )
    return any(test(kind) for test in tests)


def _pictures(
    shards: list[Shard], image: str, locations: list[str], rows: list[bool], problems: list[str]
) -> Iterator[Picture]:
    """The images of the rows that are kept; those that are missing become problems."""
    location = iter(zip(locations, rows, strict=True))
    for shard in shards:
        for batch in shard.file.iter_batches(ROWS_AT_ONCE, columns=[image]):
            column = batch.column(0)
            encoded = column.field("bytes") if _has_bytes(column.type) else column
            for at, (scalar, (here, kept)) in enumerate(zip(encoded, location, strict=False)):
                if not kept:
                    continue
                if scalar.is_valid:
                    yield Picture(here, scalar.as_py)
                else:
                    path = (column[at].as_py() or {}).get("path")
                    said = f", only the path {path!r}" if path else ""
                    problems.append(f"{here}: no image bytes{said}")
