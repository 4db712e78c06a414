"""Encoded images to one array of pixels, for every layout."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from training.data.colours import as_seen
from training.data.dataset import Dataset
from training.data.labelling import encode_labels
from training.data.reading import Reading
from training.data.sniffing import HEAD_BYTES, describe
from training.errors import DataError

UNREADABLE = (
    *(OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError),  # Pillow
    *(zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError),  # zipfile
    tarfile.TarError,
)
"""Errors that a damaged, encrypted or exotic file raises."""

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    location: str
    """Location for people: ``line 7: 'a.png'``."""
    read: Callable[[], bytes]
    """Returns the encoded image."""


@dataclass(frozen=True)
class Framing:
    """Part of every image that is kept, and the size it is resized to."""

    size: int | None = None
    """Both sides in pixels after resizing; without it, images must be alike."""
    crop: int | None = None
    """Side in pixels of the central square that is kept; with ``size`` alone, the largest."""

    def apply(self, image: Image.Image) -> Image.Image:
        """Crop and resize. Raises ``ValueError`` if the image is smaller than ``crop``."""
        if self.size is None and self.crop is None:
            return image
        side = self.crop or min(image.size)
        if side > min(image.size):
            raise ValueError(f"is {image.width}x{image.height}, too small for --crop {side}")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        # Cropped first: the filter would look beyond the edges of a `box`.
        square = image.crop((left, top, left + side, top + side))
        if self.size is None:
            return square
        # Lanczos keeps edges that a box would blur, and Pillow widens it when shrinking, so that
        # nothing aliases; large images are first averaged to three times the size, for speed.
        return square.resize((self.size, self.size), Image.Resampling.LANCZOS, reducing_gap=3)


def build(
    name: str,
    source: str,
    pictures: Iterable[Picture],
    names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    framing: Framing,
    problems: list[str],
    reading: Reading | None = None,
) -> Dataset:
    """Read ``pictures``, one for each of ``names``, and give them the labels in ``columns``.

    ``reading`` gets notes on what was done to images. Raises ``DataError`` with ``problems``, found
    before, and all that is wrong with the images.
    """
    if not names and not problems:
        problems.append("holds no images")
    images = decode(pictures, len(names), framing, problems, reading)
    if problems:
        raise DataError(source, problems)
    labels, attributes = encode_labels(columns, len(names), source)
    return Dataset(name, images, labels, attributes, names=tuple(names), reading=reading)


def decode(
    pictures: Iterable[Picture],
    count: int,
    framing: Framing,
    problems: list[str],
    reading: Reading | None = None,
) -> Pixels:
    """``count`` pictures as uint8 ``[count, H, W, channels]``, grey if all are grey, else RGB.

    Faults are added to ``problems``; if there are any, the array is invalid.
    """
    images: Pixels | None = None
    sides: list[tuple[str, tuple[int, int]]] = []
    progress = tqdm(pictures, "reading", count, leave=False, unit="img", disable=None)
    for index, (location, read) in enumerate(progress):
        data = b""
        try:
            data = read()
            image, notes = as_seen(Image.open(io.BytesIO(data)))
        except UnidentifiedImageError:
            problems.append(f"{location} is not a readable image: {describe(data[:HEAD_BYTES])}")
            continue
        except UNREADABLE as error:
            problems.append(f"{location} is not a readable image: {error}")
            continue
        if reading is not None:
            reading.sides.append(min(image.size))
            for note in notes:
                reading.note(note, location)
        try:
            pixels = np.atleast_3d(np.asarray(framing.apply(image)))
        except ValueError as error:
            problems.append(f"{location} {error}")
            continue
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
    return np.zeros((0, 1, 1, 1), dtype=np.uint8) if images is None else images


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
    counts = Counter(size for _, size in sides)
    if len(counts) < 2:
        return []
    (usual, _), *_ = counts.most_common()
    return [
        f"{location} is {size[0]}x{size[1]}, the others are {usual[0]}x{usual[1]}: "
        "--size draws all at one size"
        for location, size in sides
        if size != usual
    ]
