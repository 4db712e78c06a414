"""Encoded images to one array of pixels, for every layout."""

from __future__ import annotations

import io
import math
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from training.data.colours import as_seen
from training.data.dataset import Dataset
from training.data.labelling import encode_labels
from training.data.options import Options
from training.data.reading import DAMAGED, Reading
from training.data.sniffing import HEAD_BYTES, describe
from training.errors import DataError

UNREADABLE = (
    *(OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError),  # Pillow
    *(zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError),  # zipfile
    tarfile.TarError,
)
"""Errors that a damaged, encrypted or exotic file raises."""

FEW_DIFFERING = 5
"""Images of another size that are listed one by one."""

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    location: str
    """Location for people: ``line 7: 'a.png'``."""
    read: Callable[[], bytes]
    """Returns the encoded image."""


def build(
    name: str,
    source: str,
    pictures: Iterable[Picture],
    names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    options: Options,
    problems: list[str],
    reading: Reading,
) -> Dataset:
    """Read ``pictures``, one for each of ``names``, and give them the labels in ``columns``.

    ``reading`` gets notes on what was done to images. Raises ``DataError`` with ``problems``, found
    before, and all that is wrong with the images.
    """
    if not names and not problems:
        problems.append("holds no images")
    images, damaged = decode(pictures, len(names), options, problems, reading)
    if damaged and options.skip_bad:
        rows = [row for row in range(len(names)) if row not in damaged]
        names = [names[row] for row in rows]
        columns = {key: [column[row] for row in rows] for key, column in columns.items()}
        reading.leave_out(DAMAGED, damaged.values())
        if not names:
            problems.append("holds no image that can be read")
    if problems:
        remedy = "--on-bad skip leaves out images that are not readable"
        raise DataError(source, problems, remedy if damaged and not options.skip_bad else "")
    labels, attributes = encode_labels(columns, len(names), source)
    return Dataset(name, images, labels, attributes, names=tuple(names), reading=reading)


def decode(
    pictures: Iterable[Picture],
    count: int,
    options: Options,
    problems: list[str],
    reading: Reading,
) -> tuple[Pixels, dict[int, str]]:
    """``count`` pictures as uint8 ``[N, H, W, channels]``, grey if all are grey, else RGB.

    The second value has a sentence on each picture that is damaged, by its position; the array
    leaves these out. Faults are added to ``problems``, damage only if it is not skipped; if there
    are any, the array is invalid.
    """
    images: Pixels | None = None
    damaged: dict[int, str] = {}
    sides: list[tuple[str, tuple[int, int]]] = []
    progress = tqdm(pictures, "reading", count, leave=False, unit="img", disable=None)
    for position, (location, read) in enumerate(progress):
        data = b""
        try:
            data = read()
            image, notes = as_seen(Image.open(io.BytesIO(data)))
        except UNREADABLE as error:
            unknown = isinstance(error, UnidentifiedImageError)
            why = describe(data[:HEAD_BYTES]) if unknown else error
            damaged[position] = f"{location} is not a readable image: {why}"
            if not options.skip_bad:
                problems.append(damaged[position])
            continue
        reading.sides.append(min(image.size))
        for note in notes:
            reading.note(note, location)
        try:
            pixels = np.atleast_3d(np.asarray(options.framing.apply(image)))
        except ValueError as error:
            problems.append(f"{location} {error}")
            continue
        index = len(sides)
        height, width, channels = pixels.shape
        sides.append((location, (width, height)))
        if images is None:
            images = _room(count, height, width, channels)
        if images.shape[3] < channels:
            colour = _room(count, height, width, channels)
            colour[:index] = images[:index]
            images = colour
        if images.shape[1:3] == (height, width):
            images[index] = pixels
    problems += _differing(sides)
    if images is None:
        return np.zeros((0, 1, 1, 1), dtype=np.uint8), damaged
    return images[: len(sides)], damaged


def _room(count: int, height: int, width: int, channels: int) -> Pixels:
    """An array whose memory is taken as it is filled. Raises ``DataError`` without the memory."""
    try:
        return np.empty((count, height, width, channels), dtype=np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{count} images of {width}x{height}",
            [f"do not fit into memory: {error}; --size makes them smaller"],
        ) from error


def _differing(sides: list[tuple[str, tuple[int, int]]]) -> list[str]:
    """Images that have another size than most; of many, one sentence."""
    counts = Counter(size for _, size in sides)
    if len(counts) < 2:
        return []
    (usual, often), *_ = counts.most_common()
    others = f"{usual[0]}x{usual[1]}"
    odd = [(location, size) for location, size in sides if size != usual]
    if len(odd) > FEW_DIFFERING:
        smallest, largest = min(counts, key=math.prod), max(counts, key=math.prod)
        return [
            f"the images have {len(counts):,} sizes, from {smallest[0]}x{smallest[1]} to "
            f"{largest[0]}x{largest[1]}, most often {others} ({often:,} images): --size 64 draws "
            "the largest central square of each at 64x64, and --pad white beside it keeps the "
            "whole image, with white borders"
        ]
    return [
        f"{location} is {size[0]}x{size[1]}, the others are {others}: --size draws all at one size"
        for location, size in odd
    ]
