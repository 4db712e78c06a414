"""Images in one folder for each class: the layout that torchvision calls ImageFolder.

Also the same with ``attribute=value`` as folders, as Hive and Spark name them.
"""

from __future__ import annotations

import re
from functools import partial

from training.data import splits
from training.data.archive import Archive, count_others, images_of
from training.data.dataset import Dataset
from training.data.decoding import Picture, build
from training.data.labelling import choose, label_name, label_problems
from training.data.options import Options
from training.data.tables import is_table

SIDECARS = (".json", ".xml", ".txt", ".cls", ".caption", ".yaml")
"""Endings of files that say something of the image of the same name."""
FEW_SHOWN = 5


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    return None if images_of(archive) else "no images"


def read(archive: Archive, options: Options) -> Dataset:
    """Read the folder or archive.

    The one attribute is called ``label``, or as ``options.attributes`` says; if that is empty,
    there is none, and images may lie anywhere. Its values are the names of the folders. Raises
    ``DataError`` with everything that is wrong.
    """
    source, reading = str(archive.path), archive.reading
    images = images_of(archive)
    wanted = None if reading.split else options.split
    selection = splits.select(images, source, wanted, classes=True)
    kept = selection.kept
    if not options.split and (inner := _splits_below_classes(kept)):
        kept, others = inner
        reading.split = splits.TRAIN
        reading.leave_out("split below a class that is not for training", others)
    for reason, left_out in selection.left_out.items():
        reading.leave_out(reason, left_out)
    reading.split = reading.split or selection.split
    names = [name for name, _ in kept]
    count_others(archive, set(images))
    _note_labels(archive, images)
    columns = _columns(kept, options, source)
    if columns and not any(any(column) for column in columns.values()):
        why = "has images, but no folder for each class of them"
        if begins := _beginnings(names):
            why += f" (file names begin with {', '.join(begins)}: move each kind into a folder)"
        raise options.unlabelled(source, why, reading)
    problems = label_problems(columns, [repr(name) for name in names])
    pictures = (Picture(repr(name), partial(archive.read, name)) for name in names)
    reading.layout = "class folders" if columns else "images without labels"
    stem = archive.path.resolve().stem
    return build(stem, source, pictures, names, columns, options.framing, problems, reading)


def _columns(kept: list[tuple[str, str]], options: Options, source: str) -> dict[str, list[str]]:
    if options.attributes is not None and not options.attributes:
        return {}
    hive = [_hive(rest) for _, rest in kept]
    if hive and hive[0] and all(found.keys() == hive[0].keys() for found in hive):
        available = [name for name in hive[0] if name.lower() not in splits.COLUMNS]
        wanted = choose(available, options.attributes, source)
        return {name: [found[name] for found in hive] for name in wanted}
    label = label_name(options.attributes, source)
    if label is None:
        return {}
    return {label: [rest.partition("/")[0] if "/" in rest else "" for _, rest in kept]}


def _hive(rest: str) -> dict[str, str]:
    """Attributes in the folders of ``rest``: ``hair=red/eyes=blue/1.png``."""
    parts = (part.partition("=") for part in rest.split("/")[:-1] if "=" in part)
    return {name: value for name, _, value in parts if name and value}


def _splits_below_classes(
    kept: list[tuple[str, str]],
) -> tuple[list[tuple[str, str]], list[str]] | None:
    """Training images and the others of ``cat/train``, ``cat/test``, ``dog/train`` ...; or None."""
    kinds = []
    for _, rest in kept:
        parts = rest.split("/")
        kind = splits.kind_of(parts[1]) if len(parts) > 2 else None
        if kind is None:
            return None
        kinds.append(kind[0])
    if splits.TRAIN not in kinds or len(set(kinds)) < 2:
        return None
    train = [item for item, kind in zip(kept, kinds, strict=True) if kind == splits.TRAIN]
    return train, [n for (n, _), kind in zip(kept, kinds, strict=True) if kind != splits.TRAIN]


def _note_labels(archive: Archive, images: list[str]) -> None:
    """Record files that look like labels and are not read."""
    stems = {name.rpartition(".")[0] for name in images}
    beside = []
    for name in archive.names:
        if is_table(name):
            archive.reading.unread[name] = "a table, but not of these images"
        elif name.lower().endswith(SIDECARS) and name.rpartition(".")[0] in stems:
            beside.append(name)
    if beside:
        more = f" and {len(beside) - 1} more" if len(beside) > 1 else ""
        archive.reading.unread[f"{beside[0]}{more}"] = "a file beside its image"


def _beginnings(names: list[str]) -> list[str]:
    """Words that several file names begin with: cat and dog of ``cat.0.png``, ``dog.0.png``."""
    words = [re.match(r"[^\W\d_]+(?=[\W\d_])", name.rpartition("/")[2]) for name in names]
    found = {word[0] for word in words if word}
    return sorted(found)[:FEW_SHOWN] if 1 < len(found) <= len(names) / 2 else []
