"""WebDataset: tars in which the files of a sample share a key: ``KEY.png``, ``KEY.cls``.

https://github.com/webdataset/webdataset. Sets that the service makes are read by the labels in
their JSON.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

from training.data import splits
from training.data.archive import Archive
from training.data.contents import count_others, images_of
from training.data.dataset import Dataset
from training.data.decoding import Picture, build
from training.data.imagefolder import OURS
from training.data.labelling import choose, label_problems
from training.data.options import Options
from training.data.packed import TAR
from training.data.tables import as_text
from training.data.text import decode
from training.errors import DataError

CLASS, JSON, CAPTION = "cls", "json", "txt"
IN_TAR = re.compile("|".join(re.escape(f"{ending}/") for ending in TAR), re.IGNORECASE)


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    members = _members(archive)
    if not members:
        return "no tar"
    if any(_ending(name) in (CLASS, JSON) for name in members):
        return None
    return f"no KEY.{CLASS} or KEY.{JSON} beside the images of a tar"


def _members(archive: Archive) -> list[str]:
    """Files in tars: all of a tar, and those below the names of tars in a folder."""
    if archive.path.is_file():
        return archive.names if archive.path.name.lower().endswith(TAR) else []
    return [name for name in archive.names if IN_TAR.search(name)]


def read(archive: Archive, options: Options) -> Dataset:
    """Read a tar or all tars of a folder.

    Labels are the class files (``label``, or the name between key and ending), or the values in
    the JSON. Raises ``DataError`` with everything that is wrong.
    """
    source, reading, problems = str(archive.path), archive.reading, list[str]()
    members = set(_members(archive))
    every = [name for name in images_of(archive) if name in members]
    selection = splits.select(every, source, None if reading.split else options.split)
    for reason, names in selection.left_out.items():
        reading.leave_out(reason, names)
    reading.split = reading.split or selection.split
    images = [name for name, _ in selection.kept]
    beside: dict[str, list[str]] = {}
    for name in members - set(images):
        beside.setdefault(_key(name), []).append(name)
    used, records, shared = set(images), list[dict[str, Any]](), set[str]()
    labels = _Records(archive, options, problems)
    for name in images:
        key = _key(name)
        if key in shared:
            problems.append(f"{name!r}: a second image with the key of the one before")
        shared.add(key)
        parts = sorted(beside.get(key, ()))
        records.append(labels.read(key, parts))
        used.update(part for part in parts if _ending(part) in (CLASS, JSON))
    if not images:
        kinds = sorted({f".{_ending(name)}" for name in members})
        raise DataError(source, [f"holds no images, but files that end with {', '.join(kinds)}"])
    keys = {_key(name) for name in every}
    alone = [name for key, parts in beside.items() if key not in keys for name in parts]
    reading.leave_out("file without an image of its key", sorted(alone))
    captions = sum(_ending(name) == CAPTION for parts in beside.values() for name in parts)
    if captions:
        reading.unread[f"{captions} captions (*.{CAPTION})"] = "a text for each image"
    columns = _columns(records, options, archive, source)
    problems += label_problems(columns, [repr(name) for name in images])
    count_others(archive, used | set(images_of(archive)) | set(alone))
    reading.layout, reading.tables = "WebDataset", []
    pictures = (Picture(repr(name), partial(archive.read, name)) for name in images)
    stem = archive.path.resolve().name.partition(".")[0]
    return build(stem, source, pictures, images, columns, options, problems, reading)


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


class _Records:
    """Labels of samples: those of their JSON, or else of their class files."""

    def __init__(self, archive: Archive, options: Options, problems: list[str]) -> None:
        self._archive = archive
        self._encoding = options.encoding
        self._problems = problems
        self._names: dict[tuple[str, str], Any] = {}
        """Field and class to the value that the JSON has for it."""

    def read(self, key: str, parts: list[str]) -> dict[str, Any]:
        """Labels of one sample, whose other files are ``parts``."""
        classes: dict[str, Any] = {}
        for name in parts:
            if _ending(name) == CLASS:
                field = name.removeprefix(f"{key}.").rpartition(".")[0] or "label"
                classes[field] = self._text(name).strip()
        for name in parts:
            if _ending(name) == JSON:
                return self._described(name, classes)
        return classes

    def _described(self, name: str, classes: dict[str, Any]) -> dict[str, Any]:
        try:
            described = json.loads(self._text(name))
        except (ValueError, RecursionError) as error:
            self._problems.append(f"{name!r} is not JSON: {error}")
            return classes
        if not isinstance(described, dict):
            found = {"label": described}
        elif isinstance(described.get("labels"), dict):
            found = described["labels"]
        else:
            facts = OURS if "url" in described or "address" in described else ()
            found = {
                name: value
                for name, value in described.items()
                if name not in facts and not (name == "labels" and value is None)
            }
        for field, index in classes.items():
            if field in found:
                self._compare(name, field, index, as_text(found[field]))
        if isinstance(described, dict) and found is described.get("labels"):
            for field in classes.keys() - found.keys():
                self._archive.reading.unread[f"*.{CLASS} of {field!r}"] = "the JSON has the labels"
            return found
        return classes | found

    def _compare(self, name: str, field: str, index: str, value: str) -> None:
        """Note a problem if a class file and the JSON of its sample contradict each other."""
        before = self._names.setdefault((field, index), value)
        numbers = index.isdecimal() and value.isdecimal() and index != value
        if numbers or before != value:
            says = f"the class file says {index}" + ("" if numbers else f", which was {before!r}")
            self._problems.append(f"{name!r}: {field} is {value!r}, but {says}")

    def _text(self, name: str) -> str:
        return decode(self._archive.read(name), f"{self._archive.path}/{name}", self._encoding)


def _columns(
    records: list[dict[str, Any]], options: Options, archive: Archive, source: str
) -> dict[str, list[str]]:
    available: list[str] = []
    for record in records:
        available += [name for name in record if name not in available]
    for name in list(available):
        values = [record.get(name) for record in records]
        if any(isinstance(value, list | dict) for value in values):
            archive.reading.unread[name] = "a list or an object"
            available.remove(name)
        elif any(isinstance(value, float) and not value.is_integer() for value in values):
            archive.reading.unread[name] = "measured numbers"
            available.remove(name)
    wanted = choose(available, options.attributes, source)
    if not wanted and options.attributes is None:
        raise options.unlabelled(source, "has images, but no labels", archive.reading)
    return {name: [as_text(record.get(name)) for record in records] for name in wanted}
