"""WebDataset: tars in which the files of a sample share a key: ``KEY.png``, ``KEY.cls``.

https://github.com/webdataset/webdataset. Sets that the service makes are read by the labels in
their JSON.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from training.data import splits
from training.data.archive import TAR, Archive, count_others, images_of
from training.data.dataset import Dataset
from training.data.decoding import Picture, build
from training.data.imagefolder import OURS
from training.data.labelling import choose, label_problems
from training.data.options import Options
from training.data.tables import as_text
from training.data.text import decode

CLASS, JSON, CAPTION = "cls", "json", "txt"


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    if not any(_is_in_tar(archive, name) for name in archive.names):
        return "no tar"
    if any(name.endswith((f".{CLASS}", f".{JSON}")) for name in _members(archive)):
        return None
    return f"no KEY.{CLASS} or KEY.{JSON} beside the images of a tar"


def _members(archive: Archive) -> list[str]:
    return [name for name in archive.names if _is_in_tar(archive, name)]


def _is_in_tar(archive: Archive, name: str) -> bool:
    if archive.path.is_file():
        return archive.path.name.lower().endswith(TAR)
    return any(f"{ending}/" in name.lower() for ending in TAR)


def read(archive: Archive, options: Options) -> Dataset:
    """Read a tar or all tars of a folder.

    Labels are the class files (``label``, or the name between key and ending), or the values in
    the JSON. Raises ``DataError`` with everything that is wrong.
    """
    source, reading, problems = str(archive.path), archive.reading, list[str]()
    members = set(_members(archive))
    images = [name for name in images_of(archive) if name in members]
    selection = splits.select(images, source, None if reading.split else options.split)
    for reason, names in selection.left_out.items():
        reading.leave_out(reason, names)
    reading.split = reading.split or selection.split
    images = [name for name, _ in selection.kept]
    beside: dict[str, list[str]] = {}
    for name in members - set(images):
        beside.setdefault(_key(name), []).append(name)
    used, records, shared = set(images), [], set[str]()
    for name in images:
        key = _key(name)
        if key in shared:
            problems.append(f"{name!r}: a second image with the key of the one before")
        shared.add(key)
        parts = sorted(beside.get(key, ()))
        records.append(_record(archive, key, parts, options, problems))
        used.update(part for part in parts if part.endswith((f".{CLASS}", f".{JSON}")))
    captions = sum(name.endswith(f".{CAPTION}") for parts in beside.values() for name in parts)
    if captions:
        reading.unread[f"{captions} captions (*.{CAPTION})"] = "a text for each image"
    columns = _columns(records, options, archive, source)
    problems += label_problems(columns, [repr(name) for name in images])
    count_others(archive, used | set(images_of(archive)))
    reading.layout, reading.tables = "WebDataset", []
    pictures = (Picture(repr(name), partial(archive.read, name)) for name in images)
    stem = archive.path.resolve().name.partition(".")[0]
    return build(stem, source, pictures, images, columns, options.framing, problems, reading)


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _record(
    archive: Archive, key: str, parts: list[str], options: Options, problems: list[str]
) -> dict[str, Any]:
    """Labels of one sample: those of its JSON, or else of its class files."""
    found: dict[str, Any] = {}
    for name in parts:
        field, _, ending = name.removeprefix(f"{key}.").rpartition(".")
        if ending == CLASS:
            text = decode(archive.read(name), f"{archive.path}/{name}", options.encoding)
            found[field or "label"] = text.strip()
    for name in parts:
        if not name.endswith(f".{JSON}"):
            continue
        try:
            described = json.loads(
                decode(archive.read(name), f"{archive.path}/{name}", options.encoding)
            )
        except (ValueError, RecursionError) as error:
            problems.append(f"{name!r} is not JSON: {error}")
            continue
        if isinstance(described, dict) and isinstance(described.get("labels"), dict):
            return dict(described["labels"])
        if isinstance(described, dict):
            facts = OURS if "url" in described or "address" in described else ()
            found |= {
                name: value
                for name, value in described.items()
                if name not in facts and not (name == "labels" and value is None)
            }
        else:
            found["label"] = described
    return found


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
