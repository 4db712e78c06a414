"""Images in Parquet files, as Hugging Face writes them.

A column ``image`` holds the encoded files, alone or in a struct with their paths; columns of text,
whole numbers or yes/no are attributes. What Hugging Face's ``datasets`` knows of the columns, such
as the names of classes, stands as JSON in the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.archive import Archive
from training.data.dataset import Dataset
from training.data.decoding import UNREADABLE, Framing, Picture, build
from training.data.labelling import NO_YES, choose, label_problems
from training.errors import DataError

SUFFIX = ".parquet"
IMAGE = "image"
ROWS_AT_ONCE = 256
PAGE_BUFFER = 2**20


@dataclass(frozen=True)
class Shard:
    name: str
    file: Any  # pyarrow has no types

    def places(self, alone: bool) -> list[str]:
        """``row 7`` for each row, counted from 0, after the file's name unless it is ``alone``."""
        prefix = "" if alone else f"{self.name} "
        return [f"{prefix}row {row}" for row in range(self.file.metadata.num_rows)]


def recognises(archive: Archive) -> bool:
    return bool(_shards(archive.names))


def read(archive: Archive, attributes: Sequence[str] | None, framing: Framing) -> Dataset:
    """Read a file, or all shards in a folder or zip: those for training where there are splits.

    ``attributes`` names the columns to learn; left out, all that can be. Raises ``DataError`` with
    everything that is wrong.
    """
    source, problems = str(archive.path), list[str]()
    with ExitStack() as stack:
        shards = [_open(archive, name, stack) for name in _shards(archive.names)]
        schema = shards[0].file.schema_arrow
        for shard in shards[1:]:
            if shard.file.schema_arrow.names != schema.names:
                raise DataError(source, [f"{shard.name} has other columns than {shards[0].name}"])
        features = _features(schema)
        image = _image_column(schema, features, source)
        available = [f.name for f in schema if f.name != image and _is_label(f.type)]
        wanted = choose(available, attributes, source)
        places = [place for shard in shards for place in shard.places(len(shards) == 1)]
        try:
            columns = {
                name: _values(shards, name, features.get(name, {}), places, problems)
                for name in wanted
            }
            problems += label_problems(columns, places)
            pictures = _pictures(shards, image, places, problems)
            name = archive.path.resolve().stem
            return build(name, source, pictures, places, columns, framing, problems)
        except (pa.ArrowException, OSError) as error:
            raise DataError(source, [f"is a damaged Parquet file: {error}"]) from error


def _shards(names: list[str]) -> list[str]:
    """The Parquet files among ``names``: those for training where any says that it is."""
    shards = [name for name in names if name.lower().endswith(SUFFIX)]
    training = [name for name in shards if _is_for_training(PurePosixPath(name.lower()))]
    return training or shards


def _is_for_training(path: PurePosixPath) -> bool:
    return "train" in path.parent.parts or path.stem.split("-")[0] == "train"


def _open(archive: Archive, name: str, stack: ExitStack) -> Shard:
    try:
        file = stack.enter_context(archive.open(name))
        # Row groups page by page: pyarrow would hold each as a whole, which may be the file.
        return Shard(name, pq.ParquetFile(file, buffer_size=PAGE_BUFFER, pre_buffer=False))
    except (pa.ArrowException, *UNREADABLE) as error:
        raise DataError(
            str(archive.path), [f"{name} is not a readable Parquet file: {error}"]
        ) from error


def _features(schema: Any) -> dict[str, Any]:
    """What ``datasets`` noted of each column, such as ``{"label": {"_type": "ClassLabel", ...}}``.

    Empty where other programs wrote the file.
    """
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def _image_column(schema: Any, features: dict[str, Any], source: str) -> str:
    noted = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    name = IMAGE if IMAGE in schema.names or not noted else noted[0]
    if name not in schema.names:
        raise DataError(source, [f"no column {IMAGE!r}; there are: {', '.join(schema.names)}"])
    kind = schema.field(name).type
    if not _is_bytes(kind.field("bytes").type if _has_bytes(kind) else kind):
        raise DataError(source, [f"column {name!r} holds {kind}, not encoded images"])
    return name


def _has_bytes(kind: Any) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _is_bytes(kind: Any) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_label(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def _values(
    shards: list[Shard], name: str, feature: dict[str, Any], places: list[str], problems: list[str]
) -> list[str]:
    """A column as text: class names for their numbers, and nothing where a value is missing."""
    found = [
        value
        for shard in shards
        for value in shard.file.read(columns=[name]).column(name).to_pylist()
    ]
    classes = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    if not isinstance(classes, list):
        return [_text(value) for value in found]
    values = []
    for place, value in zip(places, found, strict=True):
        if value is None or value == -1:  # how `datasets` writes that there is no label
            values.append("")
        elif value in range(len(classes)):
            values.append(str(classes[value]))
        else:
            values.append(str(value))
            problems.append(f"{place}: {name} is {value!r}, but there are {len(classes)} names")
    return values


def _text(value: str | int | bool | None) -> str:
    if isinstance(value, bool):
        return NO_YES[value]
    return "" if value is None else str(value).strip()


def _pictures(
    shards: list[Shard], image: str, places: list[str], problems: list[str]
) -> Iterator[Picture]:
    """The images that are there; those that are not become problems."""
    place = iter(places)
    for shard in shards:
        for batch in shard.file.iter_batches(ROWS_AT_ONCE, columns=[image]):
            column = batch.column(0)
            encoded = column.field("bytes") if _has_bytes(column.type) else column
            for scalar, here in zip(encoded, place, strict=False):
                if scalar.is_valid:
                    yield Picture(here, scalar.as_py)
                else:
                    problems.append(f"{here}: no image bytes")
