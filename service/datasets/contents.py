"""Contents of a complete set, as its README.md and croissant.json describe them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.datasets.manifest import DatasetFile, DatasetManifest
from service.formats.parquet import FACTS, IMAGE
from service.formats.records import ADDRESS, FILE_NAME, columns

WHOLE = "train"
"""Split of a set without splits, as Hugging Face calls it."""
SPLIT = "split"
"""Column of Parquet files of a set with splits."""


@dataclass(frozen=True)
class Contents:
    """Files by split, and labels by column."""

    splits: Mapping[str, Sequence[DatasetFile]]
    """Files with images."""
    tables: Sequence[DatasetFile]
    """Tables of the labels, beside arrays."""
    columns: Mapping[str, Sequence[str]]
    """Column of each attribute to its values, in the order of their ids."""
    ids: bool
    """True if labels are indices of values, not the values."""
    facts: Mapping[str, str]
    """Parquet: columns besides the image and its labels, with their types."""
    in_folders: bool
    """True if folders are the classes, without a table."""


def contents_of(manifest: DatasetManifest) -> Contents:
    """Contents of the set of a manifest: the one place that knows its fields."""
    splits: dict[str, list[DatasetFile]] = {}
    for file in manifest.files:
        if file.images:
            splits.setdefault(file.split or WHOLE, []).append(file)
    asked = manifest.asked
    parquet = asked["format"] == "parquet"
    facts = ({SPLIT: "string"} if asked.get("splits") else {}) | FACTS
    ours = (IMAGE, *facts) if parquet else (FILE_NAME, ADDRESS)
    names = columns([*manifest.attributes], ours)
    return Contents(
        splits=splits,
        tables=[file for file in manifest.files if file.name.endswith(".csv")],
        columns=dict(zip(names, manifest.attributes.values(), strict=True)),
        ids=parquet and asked.get("labels") == "ids",
        facts=facts,
        in_folders=asked.get("layout") == "folders",
    )


def pattern_of(files: Sequence[DatasetFile]) -> str:
    """Glob pattern of numbered files: ``anime-faces-*.tar``."""
    return re.sub(r"\d+(\.\w+)$", r"*\1", files[0].name)
