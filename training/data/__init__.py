"""Data sources: one file each, all giving a ``Dataset``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from training.data import avatars, celeba, class_folders, idx, imagefolder, parquet
from training.data.archive import Archive, open_archive
from training.data.dataset import Dataset
from training.data.decoding import Framing
from training.data.labelling import choose
from training.errors import DataError

__all__ = ["ACCEPTED", "Dataset", "load"]

FEWEST_AVATARS = 128
ACCEPTED = (
    "a folder or zip of images with a metadata.csv, with a sub-folder for each class, or with "
    "CelebA's list_attr_celeba.txt; a Parquet file of images or a folder of them; a folder with "
    "MNIST-format IDX files; or 'avatars' (drawn here; 'avatars:2000' for another number of them)"
)


class Reader(Protocol):
    """A module that reads image files laid out in one way."""

    def recognises(self, archive: Archive) -> bool:
        """Whether ``archive`` is laid out so."""

    def read(self, archive: Archive, attributes: Sequence[str] | None, framing: Framing) -> Dataset:
        """What it holds. Raises ``DataError``."""


# Class folders come last: there are images below folders in the other layouts too.
READERS: tuple[Reader, ...] = (imagefolder, celeba, parquet, class_folders)


def load(
    source: str,
    attributes: Sequence[str] | None = None,
    size: int | None = None,
    crop: int | None = None,
) -> Dataset:
    """Load the data at ``source``, a path or ``avatars[:COUNT]``.

    ``attributes`` names the labels to learn, in order; left out, all of them. Of every image the
    central square of side ``crop`` is kept and drawn at ``size`` a side. Raises ``DataError``.
    """
    framing = Framing(size, crop)
    name, _, count = source.partition(":")
    if name == "avatars":
        _refuse(framing, source, "avatars are always 64x64")
        return _select(_avatars(source, count), attributes)
    path = Path(source)
    if not path.exists():
        raise DataError(source, [f"does not exist; data is {ACCEPTED}"])
    if (images := _idx_images(path)) is not None:
        _refuse(framing, source, "IDX images keep their size")
        return idx.read(images, attributes)
    if path.is_dir() or path.suffix.lower() in (".zip", parquet.SUFFIX):
        archive = open_archive(path)
        for reader in READERS:
            if reader.recognises(archive):
                return reader.read(archive, attributes, framing)
    raise DataError(source, [f"is no data that can be read; data is {ACCEPTED}"])


def _idx_images(path: Path) -> Path | None:
    if path.is_dir():
        return idx.find(path)
    return path if idx.IMAGES in path.name else None


def _refuse(framing: Framing, source: str, why: str) -> None:
    if framing != Framing():
        raise DataError(source, [f"{why}: --size and --crop are for image files"])


def _avatars(source: str, count: str) -> Dataset:
    if not count:
        return avatars.draw()
    if not count.isdecimal() or int(count) < FEWEST_AVATARS:
        raise DataError(
            source,
            [f"{count!r} is no number of avatars: at least {FEWEST_AVATARS}, to show every label"],
        )
    return avatars.draw(int(count))


def _select(dataset: Dataset, attributes: Sequence[str] | None) -> Dataset:
    names = [attribute.name for attribute in dataset.attributes]
    columns = [names.index(name) for name in choose(names, attributes, dataset.name)]
    return dataclasses.replace(
        dataset,
        labels=dataset.labels[:, columns],
        attributes=tuple(dataset.attributes[column] for column in columns),
    )
