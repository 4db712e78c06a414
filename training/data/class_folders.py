"""Images in one folder for each class: the layout that torchvision calls ImageFolder.

Also the same with ``attribute=value`` as folders, as Hive and Spark name them.
"""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import unquote

from training.data import splits
from training.data.archive import Archive
from training.data.contents import count_others, images_of
from training.data.dataset import Dataset
from training.data.decoding import Picture, build
from training.data.labelling import HIVE_NULL, choose, label_name, label_problems
from training.data.options import Options
from training.data.reading import Reading
from training.data.tables import is_table, mismatch, stems_of
from training.errors import DataError

SIDECARS = (".json", ".xml", ".txt", ".cls", ".caption", ".yaml")
"""Endings of files that say something of the image of the same name."""
LISTS = (*SIDECARS, ".yml", ".mat", ".npy", ".xlsx", ".xls", ".ods", ".gz", ".h5", ".pkl", ".db")
LIST_NAMES = re.compile(r"label|annot|class|attr|meta|caption|target|split|categor|identity")
"""Words in the paths of files that say which labels images have, or which split they are of."""
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos")
BESIDE_IMAGES = re.compile(
    r"masks?|labels?|annotations?|annots?|segmentation\w*|trimaps?|ground ?truths?|gt|depths?|"
    r"thumbnails?|bboxes"
)
"""Folders beside ``images/`` that hold something of each image, and are no classes."""
BUCKET = re.compile(r"(\d{4,})/(?:img)?(\d+)\.\w+")
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
    _note_labels(archive, images, options)
    _check_classes(kept, source)
    if copies := _nested_copies(kept):
        gone = [name for name, rest in kept if rest.partition("/")[0] in copies]
        reading.leave_out("nested copy of the classes", gone)
        kept = [item for item in kept if item[1].partition("/")[0] not in copies]
        names = [name for name, _ in kept]
    columns = _columns(kept, options, source, reading)
    if columns and not any(any(column) for column in columns.values()):
        why = "has images, but no folder for each class of them"
        if begins := _beginnings(names):
            why += f" (file names begin with {', '.join(begins)}: move each kind into a folder)"
        raise options.unlabelled(source, why, reading)
    problems = label_problems(columns, [repr(name) for name in names], (HIVE_NULL,))
    pictures = (Picture(repr(name), partial(archive.read, name)) for name in names)
    reading.layout = "class folders" if columns else "images without labels"
    stem = archive.path.resolve().stem
    return build(stem, source, pictures, names, columns, options, problems, reading)


def _columns(
    kept: list[tuple[str, str]], options: Options, source: str, reading: Reading
) -> dict[str, list[str]]:
    if options.attributes is not None and not options.attributes:
        return {}
    hive = [_hive(rest) for _, rest in kept]
    if odd := [at for at, found in enumerate(hive) if found.keys() != hive[0].keys()]:
        one, other = kept[0][0], kept[odd[0]][0]
        raise DataError(source, [f"folders of {one!r} and {other!r} name different attributes"])
    if hive and hive[0]:
        available = [name for name in hive[0] if name.lower() not in splits.COLUMNS]
        wanted = choose(available, options.attributes, source)
        return {name: [found[name] for found in hive] for name in wanted}
    label = label_name(options.attributes, source)
    if label is None:
        return {}
    if options.attributes is None and _are_buckets(kept):
        why = f"folders such as {kept[0][1].partition('/')[0]} only number the files"
        raise options.unlabelled(source, why, reading)
    _note_nested(kept, reading)
    return {label: [rest.partition("/")[0] if "/" in rest else "" for _, rest in kept]}


def _hive(rest: str) -> dict[str, str]:
    """Attributes in the folders of ``rest``: ``hair=red/eyes=blue/1.png``."""
    parts = (part.partition("=") for part in rest.split("/")[:-1] if "=" in part)
    return {name: unquote(value) for name, _, value in parts if name and value}


def _are_buckets(kept: list[tuple[str, str]]) -> bool:
    """True if folders follow from the numbers of files: ``01000/01234.png``, ``00001/img1234.png``.

    FFHQ, Danbooru and StyleGAN's tools keep a thousand images in a folder.
    """
    numbers = [BUCKET.fullmatch(rest) for _, rest in kept]
    if not numbers or None in numbers:
        return False
    pairs = [(int(match[1]), int(match[2])) for match in numbers if match]
    if len({folder for folder, _ in pairs}) == len({file for _, file in pairs}):
        return False
    rules = (lambda n: n // 1000, lambda n: n // 1000 * 1000, lambda n: n % 1000)
    return any(all(folder == rule(file) for folder, file in pairs) for rule in rules)


def _nested_copies(kept: list[tuple[str, str]]) -> set[str]:
    """Folders that hold nothing but folders of the names of two or more of their siblings."""
    inner: dict[str, set[str]] = {}
    for _, rest in kept:
        top, *below = rest.split("/")[:-1] or [""]
        inner.setdefault(top, set()).add(below[0] if below else "")
    return {
        top for top, names in inner.items() if len(names) > 1 and names <= inner.keys() - {top, ""}
    }


def _check_classes(kept: list[tuple[str, str]], source: str) -> None:
    """Raise ``DataError`` for folders of images beside folders of their masks or labels."""
    tops = {rest.partition("/")[0] for _, rest in kept if "/" in rest}
    words = {top: re.sub(r"[\s._-]+", " ", top.lower()) for top in tops}
    beside = sorted(top for top in tops if BESIDE_IMAGES.fullmatch(words[top]))
    images = sorted(top for top in tops if words[top] in IMAGE_FOLDERS)
    if beside and images:
        raise DataError(
            source,
            [
                f"{', '.join((*images, *beside))} look like images and what belongs to them, not "
                f"like classes: read one with --split {images[0]}"
            ],
        )


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


def _note_labels(archive: Archive, images: list[str], options: Options) -> None:
    """Record files that look like labels and are not read."""
    unread, bases = archive.reading.unread, stems_of(archive)
    stems = {_stem(name) for name in images}
    tables, beside, lists = [], [], []
    for name in archive.names:
        if is_table(name):
            tables.append(name)
        elif name.lower().endswith(SIDECARS) and _stem(name) in stems:
            beside.append(name)
        elif name.lower().endswith(LISTS) and LIST_NAMES.search(name.lower()):
            lists.append(name)
    for name in tables[:FEW_SHOWN]:
        unread[name] = mismatch(archive, name, options.encoding, bases) or "another table"
    for what, names in {
        "more tables": tables[FEW_SHOWN:],
        "called like an image": beside,
        "a list that is not read": lists,
    }.items():
        if names:
            unread[_first_of(names)] = what


def _note_nested(kept: list[tuple[str, str]], reading: Reading) -> None:
    """Record folders below the classes."""
    below = {rest.split("/")[1] for _, rest in kept if rest.count("/") > 1}
    if len(below) > 1:
        reading.unread[_first_of(sorted(below))] = "folders below the classes"


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _first_of(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _beginnings(names: list[str]) -> list[str]:
    """Words that several file names begin with: cat and dog of ``cat.0.png``, ``dog.0.png``."""
    words = [re.match(r"[^\W\d_]+(?=[\W\d_])", name.rpartition("/")[2]) for name in names]
    found = {word[0] for word in words if word}
    return sorted(found)[:FEW_SHOWN] if 1 < len(found) <= len(names) / 2 else []
