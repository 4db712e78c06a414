"""Data sources: one file each, all giving a ``Dataset``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.data import avatars, idx, imagefolder
from training.data.archive import open_archive, shallowest
from training.data.dataset import Dataset
from training.errors import DataError

__all__ = ["Dataset", "load"]

FEWEST_AVATARS = 128
ACCEPTED = (
    "a folder or zip of images with a metadata.csv, a folder with MNIST-format IDX files, "
    "or 'avatars' (drawn here; 'avatars:2000' for another number of them)"
)


def load(source: str, attributes: Sequence[str] | None = None) -> Dataset:
    """Load the data at ``source``, a path or ``avatars[:COUNT]``.

    ``attributes`` names the labels to learn, in order; left out, all of them. Raises ``DataError``.
    """
    name, _, count = source.partition(":")
    if name == "avatars":
        return _select(_avatars(source, count), attributes)
    path = Path(source)
    if not path.exists():
        raise DataError(source, [f"does not exist; data is {ACCEPTED}"])
    if path.is_file() and idx.IMAGES in path.name:
        return idx.read(path, attributes)
    if path.is_dir() and (images := idx.find(path)) is not None:
        return idx.read(images, attributes)
    is_archive = path.is_dir() or path.suffix.lower() == ".zip"
    if is_archive and shallowest(open_archive(path).names(), imagefolder.METADATA) is not None:
        return imagefolder.read(path, attributes)
    raise DataError(source, [f"is no data that can be read; data is {ACCEPTED}"])


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
    if attributes is None:
        return dataset
    names = [attribute.name for attribute in dataset.attributes]
    unknown = [name for name in attributes if name not in names]
    if unknown:
        raise DataError(
            dataset.name,
            [f"no attribute {name!r}; there are: {', '.join(names)}" for name in unknown],
        )
    columns = [names.index(name) for name in attributes]
    return Dataset(
        dataset.name,
        dataset.images,
        dataset.labels[:, columns],
        tuple(dataset.attributes[column] for column in columns),
        dataset.licence,
    )
