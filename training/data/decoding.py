"""Image files into one array of pixels, whatever they lay in."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from tqdm import tqdm

from training.data.dataset import Dataset
from training.data.labelling import encode_labels
from training.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm")
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError),  # Pillow
    *(zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError),  # zipfile
)
"""What comes of a damaged, encrypted or exotic file."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Exif's orientation, and what brings such an image upright."""

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    place: str
    """What a person who mends it looks for: ``line 7: 'a.png'``."""
    read: Callable[[], bytes]
    """Gives the encoded image."""


@dataclass(frozen=True)
class Framing:
    """Which part of every image is kept, and how large it is drawn."""

    size: int | None = None
    """Both sides in pixels after resizing; without it, images must be alike."""
    crop: int | None = None
    """Side in pixels of the central square that is kept; with ``size`` alone, the largest."""

    def apply(self, image: Image.Image) -> Image.Image:
        """Raises ``ValueError`` where the image is smaller than ``crop``."""
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
) -> Dataset:
    """Read ``pictures``, one for each of ``names``, and give them the labels in ``columns``.

    Raises ``DataError`` with ``problems``, found before, and all that is wrong with the images.
    """
    if not names and not problems:
        problems.append("holds no images")
    images = decode(pictures, len(names), framing, problems)
    if problems:
        raise DataError(source, problems)
    labels, attributes = encode_labels(columns, len(names), source)
    return Dataset(name, images, labels, attributes, names=tuple(names))


def decode(
    pictures: Iterable[Picture], count: int, framing: Framing, problems: list[str]
) -> Pixels:
    """``count`` pictures as ``[count, H, W, channels]``, grey if all are grey, else RGB.

    What is wrong with them is added to ``problems``, and then the array is not to be used.
    """
    images: Pixels | None = None
    sides: list[tuple[str, tuple[int, int]]] = []
    progress = tqdm(pictures, "reading", count, leave=False, unit="img", disable=None)
    for index, (place, read) in enumerate(progress):
        try:
            image = _upright(Image.open(io.BytesIO(read())))
        except UNREADABLE as error:
            problems.append(f"{place} is not a readable image: {error}")
            continue
        try:
            pixels = np.atleast_3d(np.asarray(framing.apply(image)))
        except ValueError as error:
            problems.append(f"{place} {error}")
            continue
        height, width, channels = pixels.shape
        sides.append((place, (width, height)))
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
    """An array whose memory is only taken as it is filled."""
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
        f"{place} is {size[0]}x{size[1]}, the others are {usual[0]}x{usual[1]}: "
        "--size draws all at one size"
        for place, size in sides
        if size != usual
    ]


def _upright(image: Image.Image) -> Image.Image:
    """As a viewer shows it: turned as the camera was held, on white where it is transparent.

    Grey stays grey and the rest becomes RGB. Raises what ``UNREADABLE`` says.
    """
    image.load()
    # Not ImageOps.exif_transpose, which also writes the Exif anew and stumbles over damaged ones.
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no 8-bit range")
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255 where a viewer scales.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
