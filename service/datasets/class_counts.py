"""Images of each class in a labelled folder of the user, under the labels of a model.

    FOLDER/red/1.png                     class folders; also red__black/ for several attributes
    FOLDER/train/red/1.png               the same below train/, and val/, test/ are not counted
    FOLDER/metadata.csv, images/1.png    a table with a column for each attribute

Files are counted and never opened. ``training.data`` reads many more layouts, and checks images.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.core.labels import Label, Vocabulary
from service.core.manifest import normalise
from service.core.text import listed
from service.errors import DatasetError, InvalidLabel

TABLE, TRAIN = "metadata.csv", "train"
BETWEEN = "__"
"""Between the values of a class of several attributes."""
NO_CLASSES = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN")
IMAGES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm"),
)
"""Endings of the files that ``training.data`` reads as images."""


def count_classes(folder: Path, vocabulary: Vocabulary, by: Sequence[str] = ()) -> dict[str, int]:
    """Label phrase of each class, and its images, in the order of the model's values.

    ``by``: attributes that make the class; by default all that the folder names. Raises
    ``DatasetError`` for a folder without classes, or with one that the model does not have.
    """
    try:
        if (folder / TABLE).is_file():
            counts = _in_table(folder / TABLE, vocabulary, by)
        elif _is_split(folder / TRAIN):
            return count_classes(folder / TRAIN, vocabulary, by)
        else:
            counts = _in_folders(folder, vocabulary, by)
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename}: {error.strerror}") from error
    return {vocabulary.phrase(dict(choice)): counts[choice] for choice in sorted(counts)}


Counts = Counter[tuple[tuple[int, int], ...]]
"""Images of each ``Choice``, as sorted pairs."""


def _in_folders(folder: Path, vocabulary: Vocabulary, by: Sequence[str]) -> Counts:
    names = [path.name for path in _folders(folder)]
    if not names:
        raise DatasetError(
            f"{folder} has neither a folder for each class nor a {TABLE}: other layouts are "
            "counted by `figment audit`; give the counts with labels and -n"
        )
    classes = [name.split(BETWEEN) for name in names]
    columns = list(by) or _attributes_of(classes, vocabulary)
    counts: Counts = Counter()
    for name, values in zip(names, classes, strict=True):
        label: Label = ", ".join(values)
        if len(columns) == len(values):
            label = dict(zip(columns, values, strict=True))
        counts[_choice(vocabulary, label, str(folder / name))] += _images(folder / name)
    return counts


def _in_table(table: Path, vocabulary: Vocabulary, by: Sequence[str]) -> Counts:
    counts: Counts = Counter()
    with table.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = csv.DictReader(file)
            header = rows.fieldnames or []
            columns = _columns(table, header, vocabulary, by)
            for row in rows:
                label = {name: row[name] or "" for name in columns}
                counts[_choice(vocabulary, label, f"{table}, line {rows.line_num}")] += 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise DatasetError(f"{table} is not a CSV file in UTF-8: {error}") from error
    return counts


def _columns(
    table: Path, header: Sequence[str], vocabulary: Vocabulary, by: Sequence[str]
) -> list[str]:
    """Columns of attributes that make the class."""
    known = [attribute.name for attribute in vocabulary.attributes]
    wanted = {normalise(name) for name in by or known}
    columns = [name for name in header if normalise(name) in wanted]
    if len(columns) < (len(by) or 1):
        attributes = f"all of {listed(by)}" if by else f"an attribute of the model: {listed(known)}"
        raise DatasetError(f"{table} has the columns {listed(header)}, and not {attributes}")
    return columns


def _attributes_of(classes: Sequence[Sequence[str]], vocabulary: Vocabulary) -> list[str]:
    """The one attribute that has all values at each position of the classes; else none."""
    found = []
    for values in zip(*classes, strict=False):
        wanted = {normalise(value) for value in values}
        fitting = [a.name for a in vocabulary.attributes if wanted <= {*map(normalise, a.values)}]
        if len(fitting) != 1:
            return []
        found += fitting
    return found


def _choice(vocabulary: Vocabulary, label: Label, where: str) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(sorted(vocabulary.parse(label).items()))
    except InvalidLabel as error:
        hint = "; or name its attributes with --by" if isinstance(label, str) else ""
        raise DatasetError(f"{where}: {error}{hint}") from error


def _is_split(folder: Path) -> bool:
    """True for a folder of classes, or of images with a table; false for a class."""
    return folder.is_dir() and (
        (folder / TABLE).is_file()
        or (any(_folders(folder)) and not any(map(_is_image, folder.iterdir())))
    )


def _folders(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name not in NO_CLASSES:
            yield path


def _images(folder: Path) -> int:
    """Images in a folder and below it."""
    below = sum(_images(path) for path in _folders(folder))
    return below + sum(map(_is_image, folder.iterdir()))


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in IMAGES and not hidden and path.is_file()
