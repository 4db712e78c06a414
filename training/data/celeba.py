"""CelebA as its authors pack it: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html

``list_attr_celeba.txt`` holds the number of images, then the names of the attributes, then one line
for each image: ``000001.jpg -1 1 ...``. ``list_eval_partition.txt``, where it is there, says which
images are for training: ``000001.jpg 0``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import partial

from training.data.archive import Archive, shallowest
from training.data.dataset import Dataset
from training.data.decoding import UNREADABLE, Framing, Picture, build
from training.data.labelling import NO_YES, choose, label_problems
from training.errors import DataError

ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
ALIGNED = "img_align_celeba"
TRAINING = "0"
VALUES = {"-1": NO_YES[0], "1": NO_YES[1]}

Row = tuple[int, list[str]]
"""A line number of the list, counted from 1, and its fields: a file name and the values."""


def recognises(archive: Archive) -> bool:
    return shallowest(archive.names, ATTRIBUTES) is not None


def read(archive: Archive, attributes: Sequence[str] | None, framing: Framing) -> Dataset:
    """Read the folder or zip, its training images where there is a partition.

    Every attribute has the values ``no`` and ``yes``; ``attributes`` names those to learn. Raises
    ``DataError`` with everything that is wrong.
    """
    listed = shallowest(archive.names, ATTRIBUTES)
    if listed is None:
        raise DataError(str(archive.path), [f"has no {ATTRIBUTES}"])
    source, problems = f"{archive.path}/{listed}", list[str]()
    header, rows = _read_list(_lines(archive, listed), source, problems)
    wanted = choose(header, attributes, source)
    rows = _for_training(archive, rows, problems)
    columns = {}
    for name in wanted:
        field = 1 + header.index(name)
        columns[name] = [VALUES[fields[field]] for _, fields in rows]
    problems += label_problems(columns, [f"line {line}" for line, _ in rows])
    names = [fields[0] for _, fields in rows]
    pictures = _pictures(archive, rows, source, problems)
    return build(archive.path.resolve().stem, source, pictures, names, columns, framing, problems)


def _lines(archive: Archive, name: str) -> list[str]:
    try:
        return archive.read(name).decode("utf-8-sig").splitlines()
    except UNREADABLE as error:
        raise DataError(f"{archive.path}/{name}", [f"cannot be read: {error}"]) from error


def _read_list(lines: list[str], source: str, problems: list[str]) -> tuple[list[str], list[Row]]:
    """The attributes' names and the rows that are whole; the others become problems."""
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise DataError(
            source, ["line 1: not the number of images, as in CelebA, with the names in line 2"]
        )
    header = lines[1].split()
    rows: list[Row] = []
    for number, line in enumerate(lines[2:], start=3):
        fields = line.split()
        if not fields:
            continue
        strange = [field for field in fields[1:] if field not in VALUES]
        if len(fields) != len(header) + 1:
            problems.append(f"line {number}: {len(fields) - 1} values, line 2 names {len(header)}")
        elif strange:
            problems.append(f"line {number}: {strange[0]!r} is neither -1 nor 1")
        else:
            rows.append((number, fields))
    promised = int(lines[0])
    if len(rows) != promised and not problems:
        problems.append(f"line 1: says {promised} images, but the list has {len(rows)}")
    return header, rows


def _for_training(archive: Archive, rows: list[Row], problems: list[str]) -> list[Row]:
    """The rows that the partition leaves for training: all, where there is none."""
    name = shallowest(archive.names, PARTITION)
    if name is None:
        return rows
    chosen = set()
    for number, line in enumerate(_lines(archive, name), start=1):
        fields = line.split()
        if len(fields) == 2 and fields[1] in ("0", "1", "2"):
            chosen.update(fields[:1] if fields[1] == TRAINING else [])
        elif fields:
            problems.append(f"{PARTITION} line {number}: not a file name and 0, 1 or 2")
    kept = [row for row in rows if row[1][0] in chosen]
    if not kept and not problems:
        problems.append(f"{PARTITION} leaves no image for training (partition {TRAINING})")
    return kept


def _pictures(
    archive: Archive, rows: list[Row], source: str, problems: list[str]
) -> Iterator[Picture]:
    """The images that are there; those that are not become problems."""
    # Sorted so that where an image lies both in the wild and aligned, the aligned one is taken.
    locations = {
        posixpath.basename(name): name
        for name in sorted(archive.names, key=lambda name: ALIGNED in name.split("/"))
    }
    if rows and not any(fields[0] in locations for _, fields in rows):
        first = rows[0][1][0]
        raise DataError(
            source, [f"none of its images is there, such as {first}: is {ALIGNED}.zip unpacked?"]
        )
    for line, fields in rows:
        location = locations.get(fields[0])
        if location is None:
            problems.append(f"line {line}: no image {fields[0]!r}")
        else:
            yield Picture(f"line {line}: {fields[0]!r}", partial(archive.read, location))
