"""Data sources: one file for each layout; every layout is read into a ``Dataset``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from training.data import (
    avatars,
    celeba,
    class_folders,
    idx,
    imagefolder,
    npy,
    parquet,
    webdataset,
)
from training.data.archive import Archive, FolderArchive, open_archive
from training.data.clusters import clustered
from training.data.contents import foreign
from training.data.dataset import HELD_OUT_SHARE, Dataset
from training.data.framing import Framing
from training.data.labelling import choose
from training.data.options import Options
from training.data.packed import PACKED
from training.data.summary import summary
from training.errors import DataError

__all__ = ["ACCEPTED", "HELD_OUT_SHARE", "Dataset", "clustered", "load", "summary"]

MIN_AVATARS = 128
MAX_SNIFFED = 1000
"""Files that are opened to say what they are, if they are no data."""
ACCEPTED = (
    "a folder, zip or tar of images with a metadata.csv or another table, with a sub-folder for "
    "each class, or with CelebA's list_attr_celeba.txt; Parquet files of images; WebDataset tars; "
    "NumPy arrays with tables; MNIST-format IDX files; or 'avatars' (drawn here; 'avatars:2000' "
    "for another number of them)"
)


class Reader(Protocol):
    """A module that reads one layout."""

    def missing(self, archive: Archive, options: Options) -> str | None:
        """First thing that ``archive`` lacks for this layout, or None if it has this layout."""

    def read(self, archive: Archive, options: Options) -> Dataset:
        """Read all of it. Raises ``DataError``."""


TABLE = "images with a table"
WITH_TABLES = ("IDX", "CelebA", TABLE)
# Class folders come last: there are images below folders in the other layouts, too.
READERS: dict[str, Reader] = {
    "IDX": idx,
    "CelebA": celeba,
    "NumPy arrays": npy,
    TABLE: imagefolder,
    "Parquet": parquet,
    "WebDataset": webdataset,
    "class folders": class_folders,
}


def load(
    source: str,
    attributes: Sequence[str] | None = None,
    size: int | None = None,
    crop: int | None = None,
    *,
    pad: str | None = None,
    split: str | None = None,
    table: str | None = None,
    encoding: str | None = None,
    skip_bad: bool = False,
    clusters: int | None = None,
) -> Dataset:
    """Load the data at ``source``, a path or ``avatars[:COUNT]``.

    ``attributes`` names the labels to learn, in order; None for all, empty for none. The central
    square of side ``crop`` of every image is kept and resized to ``size`` a side, in pixels; with
    ``pad``, a colour, all of it. ``split``, ``table``, ``encoding`` and ``skip_bad`` are as in
    :class:`Options`. With ``clusters``, so many
    groups of similar images take the place of labels. Raises ``DataError``.
    """
    chosen = None if attributes is None else tuple(attributes)
    options = Options(chosen, Framing(size, crop, pad), split, table, encoding, skip_bad)
    dataset = _load(source, options)
    return dataset if clusters is None else clustered(dataset, clusters)


def _load(source: str, options: Options) -> Dataset:
    name, _, count = source.partition(":")
    if name == "avatars":
        drawn = _avatars(source, count, options.framing)
        return _select(drawn, options.attributes)
    path = Path(source)
    if not path.exists():
        raise DataError(source, [f"does not exist; data is {ACCEPTED}"])
    archive, shard_split = _open(path, options)
    archive.reading.split = shard_split
    lacking: dict[str, str] = {}
    with closing(archive):
        for layout, reader in READERS.items():
            reason = reader.missing(archive, options)
            if reason is None:
                if options.table and layout not in WITH_TABLES:
                    raise DataError(source, [f"--table {options.table}: {lacking[TABLE]}"])
                return reader.read(archive, options)
            lacking[layout] = reason
        raise _unknown(archive, lacking)


def _open(path: Path, options: Options) -> tuple[Archive, str]:
    if path.is_dir() or path.name.lower().endswith((*PACKED, parquet.SUFFIX)):
        return open_archive(path, options.encoding, options.split)
    return FolderArchive(path, options.encoding), ""


def _unknown(archive: Archive, lacking: dict[str, str]) -> DataError:
    """Error that lists the layouts tried, the first thing missing of each, and the files seen."""
    tried = [f"not {layout}: {reason}" for layout, reason in lacking.items()]
    found = archive.names
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    seen = f"there are: {', '.join(found[:5])}{more}" if found else "there are no files"
    left = [line for line in archive.reading.lines() if line.startswith("left out")]
    kinds = {
        kind: name for name in reversed(found[:MAX_SNIFFED]) if (kind := foreign(archive, name))
    }
    named = [f"{name}: {kind}" for kind, name in kinds.items()]
    problems = [f"is no data that can be read ({seen})", *named, *tried, *left]
    return DataError(str(archive.path), problems)


def _avatars(source: str, count: str, framing: Framing) -> Dataset:
    side = avatars.SIZE if framing.size is None else framing.size
    if side not in avatars.SIDES or (framing.crop, framing.pad) != (None, None):
        sides = ", ".join(map(str, avatars.SIDES))
        raise DataError(source, [f"avatars have a --size of {sides}, and no --crop or --pad"])
    if not count:
        return avatars.draw(side=side)
    if not count.isdecimal() or int(count) < MIN_AVATARS:
        raise DataError(
            source,
            [f"{count!r} is no number of avatars: at least {MIN_AVATARS}, to show every label"],
        )
    return avatars.draw(int(count), side=side)


def _select(dataset: Dataset, attributes: Sequence[str] | None) -> Dataset:
    names = [attribute.name for attribute in dataset.attributes]
    columns = [names.index(name) for name in choose(names, attributes, dataset.name)]
    return dataclasses.replace(
        dataset,
        labels=dataset.labels[:, columns],
        attributes=tuple(dataset.attributes[column] for column in columns),
    )
