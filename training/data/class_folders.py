"""Images in one folder for each class: the layout that torchvision calls ImageFolder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from training.data.archive import Archive
from training.data.dataset import Dataset
from training.data.decoding import EXTENSIONS, Framing, Picture, build
from training.data.labelling import label_name, label_problems
from training.errors import DataError

TRAIN = {"train", "training"}
SPLITS = TRAIN | {"test", "testing", "val", "valid", "validation", "dev"}


def recognises(archive: Archive) -> bool:
    return any(map(_is_image, archive.names))


def read(archive: Archive, attributes: Sequence[str] | None, framing: Framing) -> Dataset:
    """Read the folder or zip, its part ``train/`` where it has one.

    The one attribute is called ``label``, or as ``attributes`` says; if that is empty, there is
    none, and images may lie anywhere. Its values are the names of the folders. Raises ``DataError``
    with everything that is wrong.
    """
    source = str(archive.path)
    label = label_name(attributes, source)
    images = [name for name in archive.names if _is_image(name)]
    root = _root(images)
    names = [name for name in images if name.startswith(root)]
    if label is None:
        columns, problems = dict[str, list[str]](), list[str]()
    else:
        classes = [_top(name, root) for name in names]
        if not any(classes):
            raise DataError(
                source,
                [
                    "has images, but no folder for each class of them; "
                    "--attributes none learns without labels"
                ],
            )
        columns = {label: classes}
        problems = label_problems(columns, [repr(name) for name in names])
    pictures = (Picture(repr(name), partial(archive.read, name)) for name in names)
    return build(archive.path.resolve().stem, source, pictures, names, columns, framing, problems)


def _is_image(name: str) -> bool:
    """Whether it looks like one; not so what macOS leaves in zips, nor hidden files."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return not hidden and name.lower().endswith(EXTENSIONS)


def _root(images: Iterable[str]) -> str:
    """The folder whose sub-folders are the classes, as a prefix: ``""`` or ``pets/train/``."""
    root = ""
    while True:
        tops = {_top(name, root) for name in images if name.startswith(root)}
        folders = {top.lower(): top for top in tops}
        train = next((folders[name] for name in sorted(TRAIN) if name in folders), None)
        if train is not None and folders.keys() <= SPLITS | {""}:
            root += f"{train}/"
        elif len(tops) == 1 and "" not in tops:  # a folder around all
            root += f"{tops.pop()}/"
        else:
            return root


def _top(name: str, root: str) -> str:
    """The first folder of ``name`` below ``root``; empty where it lies in ``root`` itself."""
    top, _, rest = name.removeprefix(root).partition("/")
    return top if rest else ""
