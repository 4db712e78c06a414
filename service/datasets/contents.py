"""Contents of a complete set, as its README.md and croissant.json describe them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.datasets.manifest import DatasetFile, DatasetManifest
from service.formats.parquet import FACTS, IMAGE, SPLIT
from service.formats.records import ADDRESS, FILE_NAME, columns
from service.formats.registry import FOLDER


class Split(NamedTuple):
    """Files of one split."""

    pattern: str
    """Glob pattern of the files: ``anime-faces-*.tar``."""
    images: int
    bytes: int
    """Size of the files; 0 if each image is a file."""


@dataclass(frozen=True)
class Contents:
    """Files by split, and labels by column."""

    splits: Mapping[str, Split]
    """Files with images."""
    tables: Sequence[str]
    """Glob patterns of the tables of labels, beside arrays and image files."""
    columns: Mapping[str, Sequence[str]]
    """Column of each attribute to its values, in the order of their ids."""
    ids: bool
    """True if labels are indices of values, not the values."""
    facts: Mapping[str, str]
    """Parquet: columns besides the image and its labels, with their types."""
    zipped_folders: bool
    """True if folders within zip files are the classes, without a table."""


def contents_of(manifest: DatasetManifest) -> Contents:
    """Contents of the set of a manifest: the one place that knows its fields."""
    asked = manifest.asked
    parquet = asked["format"] == "parquet"
    facts = ({SPLIT: "string"} if asked["splits"] else {}) | FACTS
    ours = (IMAGE, *facts) if parquet else (FILE_NAME, ADDRESS)
    names = columns([*manifest.attributes], ours)
    tables = [_pattern(file) for file in manifest.files if file.name.endswith(".csv")]
    return Contents(
        splits=_splits(manifest),
        tables=[*dict.fromkeys(tables)],
        columns=dict(zip(names, manifest.attributes.values(), strict=True)),
        ids=parquet and asked["labels"] == "ids",
        facts=facts,
        zipped_folders=asked["format"] == "zip" and asked["layout"] == "folders",
    )


def _splits(manifest: DatasetManifest) -> dict[str, Split]:
    """Splits that have images."""
    as_files = manifest.asked["format"] == FOLDER.name
    found = {}
    for name, files in manifest.files_by_split().items():
        pattern, size = _pattern(files[0]), sum(file.bytes for file in files)
        if as_files:
            pattern, size = f"{name}/*/*.png" if files[0].split else "*/*.png", 0
        found[name] = Split(pattern, sum(file.images for file in files), size)
    return found


def _pattern(file: DatasetFile) -> str:
    """Glob pattern of a numbered file, and of others like it: ``anime-faces-*.tar``."""
    return re.sub(r"\d+(\.\w+)$", r"*\1", file.name)
