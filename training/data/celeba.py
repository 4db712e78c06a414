"""CelebA as its authors pack it, and as Kaggle does: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html

``list_attr_celeba.txt`` holds the number of images, then the names of the attributes, then one line
for each image: ``000001.jpg -1 1 ...``. ``list_attr_celeba.csv`` has the names in its first line.
``list_eval_partition`` says which images are for training, if it is there: ``000001.jpg 0``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial

from training.data import splits
from training.data.archive import Archive
from training.data.contents import count_others, images_of
from training.data.dataset import Dataset
from training.data.decoding import Picture, build
from training.data.labelling import NO_YES, choose, label_problems
from training.data.options import Options
from training.data.reading import NOT_IN_TABLE
from training.data.text import decode, read_rows
from training.errors import DataError

ATTRIBUTES = (
    *("list_attr_celeba.txt", "list_attr_celeba.csv"),
    "CelebAMask-HQ-attribute-anno.txt",
)
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
ALIGNED = "img_align_celeba"
KINDS = {"0": "train", "1": "val", "2": "test"}
VALUES = {"-1": NO_YES[0], "1": NO_YES[1]}

Row = tuple[int, list[str]]
"""A line number of the list, counted from 1, and its fields: a file name and the values."""


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    if options.table and not options.table.endswith(ATTRIBUTES):
        return f"--table {options.table} is another table"
    lists = _called(archive, ATTRIBUTES)
    return None if lists else f"no {' or '.join(ATTRIBUTES[:2])}"


def _called(archive: Archive, names: tuple[str, ...]) -> list[str]:
    """Files of one of these ``names``, in whatever case; those of the best name only."""
    by_base: dict[str, list[str]] = {}
    for at in archive.names:
        base = at.rpartition("/")[2]
        if not base.endswith((".jpg", ".png")):
            by_base.setdefault(base.lower(), []).append(at)
    return next((found for name in names if (found := by_base.get(name.lower()))), [])


def _list_of(archive: Archive, options: Options) -> str:
    lists = _called(archive, ATTRIBUTES)
    if options.table:
        lists = [at for at in lists if f"/{at}".endswith(f"/{options.table}")] or lists
    if len(lists) > 1:
        raise DataError(
            str(archive.path),
            [f"has several lists: {', '.join(lists)}; name one with --table {lists[0]}"],
        )
    return lists[0]


def _partition_of(archive: Archive, listed: str) -> str | None:
    found = _called(archive, PARTITION)
    beside = [at for at in found if posixpath.dirname(at) == posixpath.dirname(listed)]
    return next(iter(beside or found), None)


def read(archive: Archive, options: Options) -> Dataset:
    """Read the folder or archive, its training images if there is a partition.

    Every attribute has the values ``no`` and ``yes``. Raises ``DataError`` with everything that is
    wrong.
    """
    listed = _list_of(archive, options)
    partition_name = _partition_of(archive, listed)
    source, problems, reading = f"{archive.path}/{listed}", list[str](), archive.reading
    header, every = _read_list(archive, listed, options, problems)
    wanted = choose(header, options.attributes, source)
    rows, partition = _of_split(archive, partition_name, every, options, problems)
    columns = {}
    for name in wanted:
        field = 1 + header.index(name)
        columns[name] = [VALUES[fields[field]] for _, fields in rows]
    problems += label_problems(columns, [f"line {line}" for line, _ in rows])
    names = [fields[0] for _, fields in rows]
    locations = _locations(archive, listed, every, source)
    pictures = _pictures(archive, rows, locations, problems)
    reading.layout, reading.tables = "CelebA", [listed]
    used = {locations[name] for name in names if name in locations}
    images = set(images_of(archive))
    counted = {at for name, at in locations.items() if name in partition}
    reading.leave_out(NOT_IN_TABLE, sorted(images - used - counted))
    tables = {listed, partition_name or listed}
    count_others(archive, images | tables)
    stem = archive.path.resolve().stem
    return build(stem, source, pictures, names, columns, options, problems, reading)


def _lines(archive: Archive, name: str, options: Options) -> list[list[str]]:
    """Fields of each line, separated by spaces or as in a csv."""
    source = f"{archive.path}/{name}"
    text = decode(archive.read(name), source, options.encoding)
    if not name.lower().endswith(".csv"):
        return [line.split() for line in text.splitlines()]
    rows, _ = read_rows(text, source)
    last = rows[-1][0] if rows else 0
    lines: list[list[str]] = [[] for _ in range(last)]
    for number, fields in rows:
        lines[number - 1] = fields
    return lines


def _read_list(
    archive: Archive, listed: str, options: Options, problems: list[str]
) -> tuple[list[str], list[Row]]:
    """Names of the attributes and the rows that are whole; the others become problems."""
    source, lines = f"{archive.path}/{listed}", _lines(archive, listed, options)
    if listed.lower().endswith(".csv"):
        if not lines or len(lines[0]) < 2:
            raise DataError(source, ["line 1: not image_id and the attributes, as Kaggle has it"])
        header, first, expected = lines[0][1:], 1, None
    else:
        if len(lines) < 2 or len(lines[0]) != 1 or not lines[0][0].isdecimal():
            raise DataError(
                source, ["line 1: not the number of images, as in CelebA, with the names in line 2"]
            )
        header, first, expected = lines[1], 2, int(lines[0][0])
    rows: list[Row] = []
    for number, fields in enumerate(lines[first:], start=first + 1):
        if not fields:
            continue
        strange = [field for field in fields[1:] if field not in VALUES]
        if len(fields) != len(header) + 1:
            problems.append(
                f"line {number}: {len(fields) - 1} values, line {first} names {len(header)}"
            )
        elif strange:
            problems.append(f"line {number}: {strange[0]!r} is neither -1 nor 1")
        else:
            rows.append((number, fields))
    if expected is not None and len(rows) != expected and not problems:
        problems.append(f"line 1: says {expected} images, but the list has {len(rows)}")
    return header, rows


def _of_split(
    archive: Archive, name: str | None, rows: list[Row], options: Options, problems: list[str]
) -> tuple[list[Row], set[str]]:
    """Rows of the split, all without a partition; and the file names of the others."""
    if options.split == splits.NO_SPLIT or (name is None and options.split is None):
        return rows, set()
    if name is None:
        raise DataError(str(archive.path), [f"has no {PARTITION[0]} to take a split from"])
    wanted = splits.KIND_OF.get((options.split or splits.TRAIN).lower(), options.split)
    kinds = {}
    for number, fields in enumerate(_lines(archive, name, options), start=1):
        if len(fields) == 2 and fields[1] in KINDS:
            kinds[fields[0]] = KINDS[fields[1]]
        elif fields and not (number == 1 and name.lower().endswith(".csv")):
            base = posixpath.basename(name)
            problems.append(f"{base} line {number}: not a file name and 0, 1 or 2")
    kept = [row for row in rows if kinds.get(row[1][0]) == wanted]
    others = [row[1][0] for row in rows if kinds.get(row[1][0]) != wanted]
    for image in others:
        archive.reading.leave_out(f"partition {kinds.get(image, 'of no split')}", [image])
    if not kept and not problems:
        problems.append(f"{name} leaves no image for training (split {wanted})")
    archive.reading.split = wanted or ""
    return kept, set(others)


def _locations(archive: Archive, listed: str, rows: list[Row], source: str) -> dict[str, str]:
    """File name to the place of the image. Raises ``DataError`` if no image is there."""
    by_name: dict[str, list[str]] = {}
    for name in archive.names:
        base = posixpath.basename(name)
        by_name.setdefault(base, []).append(name)
        if base.endswith(".png"):  # img_align_celeba_png, which the list calls .jpg
            by_name.setdefault(base.removesuffix(".png"), []).append(name)
    locations = {}
    for _, (name, *_) in rows:
        found = by_name.get(name) or by_name.get(name.rpartition(".")[0]) or []
        if found := _nearest(found, posixpath.dirname(listed)):
            locations[name] = found[0]
        if len(found) > 1:
            raise DataError(source, [f"{name} is there several times: {', '.join(found)}"])
    if rows and not locations:
        first = rows[0][1][0]
        raise DataError(
            source, [f"none of its images is there, such as {first}: is {ALIGNED}.zip unpacked?"]
        )
    return locations


def _nearest(found: list[str], folder: str) -> list[str]:
    """Aligned images before those in the wild, and those beside the list before others."""
    if len(found) > 1:
        found = [name for name in found if ALIGNED in name.split("/")] or found
        found = [name for name in found if name.startswith(f"{folder}/")] or found
    return found


def _pictures(
    archive: Archive, rows: list[Row], locations: dict[str, str], problems: list[str]
) -> Iterator[Picture]:
    """The images that are there; those that are not become problems."""
    for line, fields in rows:
        location = locations.get(fields[0])
        if location is None:
            problems.append(f"line {line}: no image {fields[0]!r}")
        else:
            yield Picture(f"line {line}: {fields[0]!r}", partial(archive.read, location))
