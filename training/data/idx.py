"""IDX files, the format of MNIST and EMNIST: http://yann.lecun.com/exdb/mnist/ ("file formats")."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from training.data import splits
from training.data.archive import Archive
from training.data.contents import count_others
from training.data.dataset import Dataset
from training.data.decoding import UNREADABLE
from training.data.framing import Framing
from training.data.labelling import encode_labels, label_name
from training.data.options import Options
from training.data.packed import PACKED
from training.data.text import decode
from training.errors import DataError, FixedSize

IMAGES = re.compile(r"^(?P<set>.*?)images?[._-]idx3[._-]ubyte(\.gz)?$", re.IGNORECASE)
LABELS = r"labels?[._-]idx1[._-]ubyte(\.gz)?$"
IDX = re.compile(r"(?P<set>[^/]*?)(images?|labels?)[._-]idx\d[._-]ubyte(\.gz)?$", re.IGNORECASE)
CLASSES = "classes.txt"
UNSIGNED_BYTE = 8


def images_files(archive: Archive) -> list[str]:
    return [name for name in archive.names if IMAGES.match(name.rpartition("/")[2])]


def missing(archive: Archive, options: Options) -> str | None:
    """First thing that this layout lacks, or None."""
    if images_files(archive):
        return None
    near = [n for n in archive.names if "ubyte" in n.lower() or "idx" in n.lower()]
    return f"no *images-idx3-ubyte; {near[0]} is nearly it" if near else "no *images-idx3-ubyte"


def read(archive: Archive, options: Options) -> Dataset:
    """Read an images file and the labels file beside it, each plain or gzipped.

    The one attribute is called ``label``, or as ``options.attributes`` says; if that is empty,
    there is none. Its values are the numbers, the lines of ``classes.txt``, or the characters of
    EMNIST's mapping. Raises ``DataError``.
    """
    source = str(archive.path)
    if options.framing != Framing():
        raise FixedSize(
            source, ["IDX images keep their size: --size, --crop and --pad are for image files"]
        )
    label = label_name(options.attributes, source)
    images_name, reading = _choose(archive, options), archive.reading
    images = _read_array(archive, images_name, dimensions=3)
    labels_name = _labels_beside(archive, images_name)
    labels = _read_array(archive, labels_name, dimensions=1)
    if len(images) != len(labels):
        raise DataError(
            f"{source}/{labels_name}", [f"holds {len(labels)} labels for {len(images)} images"]
        )
    if len(images) == 0:
        raise DataError(f"{source}/{images_name}", ["holds no images"])
    path = archive.path.resolve()
    name = path.parent.name if _is_alone(archive) else path.stem
    reading.layout, reading.tables = f"IDX, {images_name}", [labels_name]
    if "emnist" in images_name.lower():
        reading.note(
            "EMNIST file whose letters lie transposed, as its authors made them", images_name
        )
    used = {images_name, labels_name}
    if label is None:
        vocabulary, indices = (), np.zeros((len(images), 0), dtype=np.int64)
    else:
        classes, column = _names(archive, images_name, labels, options.encoding)
        used |= classes
        once = [value for value in sorted(set(column)) if column.count(value) == 1]
        if once:
            raise DataError(
                f"{source}/{labels_name}", [f"label {value!r} stands only once" for value in once]
            )
        at = f"{source}/{labels_name}"
        indices, vocabulary = encode_labels({label: column}, len(column), at)  # type: ignore[assignment]
    if not _is_alone(archive):
        count_others(archive, used | _leave_out_others(archive, used))
    return Dataset(name, images[..., None], indices, vocabulary, reading=reading)


def _choose(archive: Archive, options: Options) -> str:
    """The images file for training. Raises ``DataError`` if several could be it."""
    found = images_files(archive)
    kinds = {name: _kind(name) for name in found}
    if options.table:
        taken = [name for name in found if options.table in name]
    elif options.split and options.split != splits.NO_SPLIT:
        wanted = splits.KIND_OF.get(options.split.lower(), options.split)
        taken = [name for name in found if kinds[name] == wanted]
    else:
        taken = [name for name in found if kinds[name] == splits.TRAIN] or found
    taken = [name for name in taken if not _is_packed_twin(name, taken)]
    if not taken:
        option = f"--table {options.table}" if options.table else f"--split {options.split}"
        raise DataError(str(archive.path), [f"{option} fits none of {', '.join(found)}"])
    if len(taken) > 1:
        raise DataError(
            str(archive.path),
            [f"has several sets: {', '.join(taken)}; name one with --table {taken[0]}"],
        )
    archive.reading.split = kinds[taken[0]] or ""
    return taken[0]


def _is_alone(archive: Archive) -> bool:
    """True if the images file was named, whose labels lie beside it."""
    return archive.path.is_file() and not archive.path.name.lower().endswith(PACKED)


def _leave_out_others(archive: Archive, used: set[str]) -> set[str]:
    """Count the IDX files beside those ``used``, and return their names."""
    others = {name for name in archive.names if name not in used and IDX.search(name)}
    for name in sorted(others):
        kind = _kind(name)
        if _is_packed_twin(name, used):
            reason = "gzipped copy of an IDX file that is read"
        elif kind and kind != archive.reading.split:
            reason = f"IDX file, {kind}"
        else:
            reason = "IDX file of another set"
        archive.reading.leave_out(reason, [name])
    return others


def _is_packed_twin(name: str, names: Collection[str]) -> bool:
    return name.lower().endswith(".gz") and name[:-3] in names


def _kind(name: str) -> str | None:
    """Kind of split in the words before ``images`` or ``labels``, or in the folders around."""
    match = IDX.search(name)
    words = [match["set"] if match else "", *reversed(name.split("/")[:-1])]
    for word in words:
        for part in re.split(r"[\s._-]+", word):
            if found := splits.kind_of(part):
                return found[0]
    return None


def _labels_pattern(images_name: str) -> str:
    """Names of the labels file, which Windows unpacks into a folder of that name."""
    folder, slash, base = images_name.rpartition("/")
    match = IMAGES.match(base)
    own = re.sub(r"image(s?[._-])idx3", r"label\1idx1", folder, flags=re.IGNORECASE)
    folders = f"(?:{re.escape(folder)}|{re.escape(own)}){slash}"
    return folders + re.escape(match["set"] if match else "") + LABELS


def _labels_beside(archive: Archive, images_name: str) -> str:
    pattern = re.compile(_labels_pattern(images_name), re.IGNORECASE)
    found = [name for name in archive.names if pattern.match(name)]
    if _is_alone(archive) and not found:
        folder = archive.path.parent
        found = sorted(path.name for path in folder.iterdir() if pattern.match(path.name))
    if not found:
        plain = re.sub(r"images?([._-])idx3", r"labels\1idx1", images_name).removesuffix(".gz")
        raise DataError(f"{archive.path}/{images_name}", [f"no {plain} or {plain}.gz beside it"])
    same = [name for name in found if name.endswith(".gz") == images_name.endswith(".gz")]
    return (same or found)[0]


def _read_array(archive: Archive, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    source = f"{archive.path}/{name}"
    try:
        data = archive.read(name)
        if name.lower().endswith(".gz"):
            data = gzip.decompress(data)
    except (*UNREADABLE, EOFError, zlib.error) as error:
        raise DataError(source, [f"cannot be read: {error}"]) from error
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise DataError(source, [f"is not an IDX file of {dimensions}-dimensional bytes"])
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    size = int(np.prod(shape, dtype=np.uint64))
    if len(data) - head != size:
        raise DataError(
            source, [f"says {'x'.join(map(str, shape))} bytes but holds {len(data) - head}"]
        )
    # A copy: PyTorch does not take arrays that are read-only.
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape).copy()


def _names(
    archive: Archive, images_name: str, labels: npt.NDArray[np.uint8], encoding: str | None
) -> tuple[set[str], list[str]]:
    """The file that names the classes, if any, and the name of each label."""
    folder, slash, base = images_name.rpartition("/")
    beside = f"{folder}{slash}{CLASSES}"
    if (text := _text(archive, beside, encoding)) is not None:
        names = [line.strip() for line in text.splitlines()]
        if labels.max() >= len(names):
            raise DataError(
                f"{archive.path}/{beside}",
                [f"has {len(names)} lines, but a label is {labels.max()}"],
            )
        return {beside}, [names[label] for label in labels]
    mapping = f"{folder}{slash}{re.split('train|test', base)[0]}mapping.txt"
    if (text := _text(archive, mapping, encoding)) is not None:
        characters = _mapping(text, f"{archive.path}/{mapping}")
        unknown = sorted(set(labels.tolist()) - characters.keys())
        if unknown:
            raise DataError(f"{archive.path}/{mapping}", [f"has no line for label {unknown[0]}"])
        return {mapping}, [characters[label] for label in labels.tolist()]
    return set(), [str(label) for label in labels]


def _text(archive: Archive, name: str, encoding: str | None) -> str | None:
    if _is_alone(archive) and name not in archive.names:
        path = archive.path.parent / name
        return decode(path.read_bytes(), str(path), encoding) if path.is_file() else None
    if name not in archive.names:
        return None
    return decode(archive.read(name), f"{archive.path}/{name}", encoding)


def _mapping(text: str, source: str) -> dict[int, str]:
    """EMNIST's lines of a label and the codes of its characters: ``10 65``."""
    try:
        found = {
            int(line.split()[0]): chr(int(line.split()[1])) for line in text.splitlines() if line
        }
    except (ValueError, IndexError) as error:
        raise DataError(source, [f"is not a mapping of labels to characters: {error}"]) from error
    folded = [character.casefold() for character in found.values()]
    return {
        label: f"small {c}" if c.islower() and folded.count(c.casefold()) > 1 else c
        for label, c in found.items()
    }
