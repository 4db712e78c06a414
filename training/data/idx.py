"""IDX files, the format of MNIST: http://yann.lecun.com/exdb/mnist/ (section "file formats")."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.dataset import Dataset
from training.data.labelling import encode_labels, label_name
from training.errors import DataError

IMAGES = "images-idx3-ubyte"
LABELS = "labels-idx1-ubyte"
CLASSES = "classes.txt"
UNSIGNED_BYTE = 8


def find(folder: Path) -> Path | None:
    """The images file of ``folder``, the training split where there are several."""
    found = sorted(path for path in folder.glob(f"*{IMAGES}*") if path.suffix in ("", ".gz"))
    return next((path for path in found if path.name.startswith("train")), None) or next(
        iter(found), None
    )


def read(images_path: Path, attributes: Sequence[str] | None = None) -> Dataset:
    """Read an images file and the labels file beside it, each plain or gzipped.

    The one attribute is called ``label``, or as ``attributes`` says; if that is empty, there is
    none. Its values are the numbers, or, where a file ``classes.txt`` lies beside, its lines.
    Raises ``DataError``.
    """
    label = label_name(attributes, str(images_path))
    images = _read_array(images_path, dimensions=3)
    labels_path = _labels_beside(images_path)
    labels = _read_array(labels_path, dimensions=1)
    if len(images) != len(labels):
        raise DataError(str(labels_path), [f"holds {len(labels)} labels for {len(images)} images"])
    if len(images) == 0:
        raise DataError(str(images_path), ["holds no images"])
    name = images_path.resolve().parent.name
    if label is None:
        return Dataset(name, images[..., None], np.zeros((len(images), 0), dtype=np.int64), ())
    column = _names(images_path.parent / CLASSES, labels)
    once = [value for value in sorted(set(column)) if column.count(value) == 1]
    if once:
        raise DataError(str(labels_path), [f"label {value!r} stands only once" for value in once])
    indices, vocabulary = encode_labels({label: column}, len(column), str(labels_path))
    return Dataset(name, images[..., None], indices, vocabulary)


def _labels_beside(images_path: Path) -> Path:
    name = images_path.name.replace(IMAGES, LABELS)
    plain, zipped = name.removesuffix(".gz"), name.removesuffix(".gz") + ".gz"
    for candidate in (
        images_path.with_name(name),
        images_path.with_name(plain),
        images_path.with_name(zipped),
    ):
        if candidate != images_path and candidate.is_file():
            return candidate
    raise DataError(str(images_path), [f"no {plain} or {zipped} beside it"])


def _read_array(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(str(path), [f"cannot be read: {error}"]) from error
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise DataError(str(path), [f"is not an IDX file of {dimensions}-dimensional bytes"])
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    size = int(np.prod(shape, dtype=np.uint64))
    if len(data) - head != size:
        raise DataError(
            str(path), [f"says {'x'.join(map(str, shape))} bytes but holds {len(data) - head}"]
        )
    # A copy: PyTorch does not take arrays that are read-only.
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape).copy()


def _names(classes: Path, labels: npt.NDArray[np.uint8]) -> list[str]:
    if not classes.is_file():
        return [str(label) for label in labels]
    try:
        names = [line.strip() for line in classes.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(str(classes), [f"is not UTF-8: {error}"]) from error
    if labels.max() >= len(names):
        raise DataError(str(classes), [f"has {len(names)} lines, but a label is {labels.max()}"])
    return [names[label] for label in labels]
