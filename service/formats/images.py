"""Single images and contact sheets as PNG, WebP and JPEG.

Metadata marks each file as synthetic and contains its address. It contains no dates, so the same
address gives the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from PIL import ExifTags, Image

from service.core.image_info import ImageInfo, Pixels
from service.errors import InvalidRequest
from service.formats import marks, png
from service.formats.records import ImageRecord, record_of

SYNTHETIC = "synthetic"
Extension = Literal["png", "webp", "jpeg"]
EXTENSIONS: tuple[str, ...] = get_args(Extension)
MAX_SIDE_PIXELS = {"webp": 16_383, "jpeg": 65_500}
"""Limits of these formats."""
MAX_SHEET_PIXELS = {"png": 1 << 24, "webp": 1 << 22, "jpeg": 1 << 24}
"""One thread takes 0.6 s to encode so many as PNG, 0.7 s as WebP, 0.1 s as JPEG."""
LOSSLESS_WEBP: dict[str, Any] = {"format": "WEBP", "lossless": True, "method": 0}
"""Method 0 takes 1/30 of the default's time for files a few per cent larger."""


def encode(pixels: Pixels, extension: str, address: str | None) -> bytes:
    """Image file of ``pixels`` (uint8 ``[H, W, channels]``). PNG and WebP are lossless.

    Source and address are in XMP (see ``marks``), and in PNG text chunks, or in Exif for WebP and
    JPEG.
    """
    if extension == "png":
        text = {"Source": SYNTHETIC} | ({"Address": address} if address else {})
        return png.encode(pixels, text, marks.xmp(address))
    image = picture(pixels)
    buffer = io.BytesIO()
    marked: dict[str, Any] = {"exif": exif(address), "xmp": marks.xmp(address)}
    if extension == "webp":
        image.save(buffer, **LOSSLESS_WEBP, **marked)
    else:
        image.save(buffer, "JPEG", quality=95, **marked)
    return buffer.getvalue()


def png_record(frame: ImageInfo, pixels: Pixels) -> ImageRecord:
    """Record of an image with its PNG file."""
    assert frame.address is not None
    return record_of(frame, encode(pixels, "png", frame.address.url()))


def raw_record(frame: ImageInfo, pixels: Pixels) -> ImageRecord:
    """Record of an image with the bytes of its pixels, for npy."""
    return record_of(frame, pixels.tobytes())


def contact_sheet(images: Sequence[Pixels], columns: int | None = None) -> Pixels:
    """Grid of images, near-square or with ``columns``; empty cells are black."""
    rows, columns = _grid(len(images), columns)
    height, width, channels = images[0].shape
    cells = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    cells[: len(images)] = images
    sheet = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width, channels)


def check_sheet(count: int, shape: Sequence[int], extension: str, columns: int | None) -> None:
    """Raise ``InvalidRequest`` if a contact sheet of images of ``shape`` is too large to encode."""
    rows, columns = _grid(count, columns)
    height, width = rows * shape[0], columns * shape[1]
    pixels = MAX_SHEET_PIXELS[extension]
    side = MAX_SIDE_PIXELS.get(extension, pixels)
    if max(height, width) > side or height * width > pixels:
        raise InvalidRequest(
            f"a sheet of {width}x{height} does not fit into {extension}: at most {pixels:,} pixels "
            f"in all, and {side:,} per side. Request fewer images, or json",
            kind="Answer too large",
        )


def _grid(count: int, columns: int | None) -> tuple[int, int]:
    """Rows and columns of a sheet."""
    columns = columns or math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def picture(pixels: Pixels) -> Image.Image:
    """Pillow's image of ``pixels``."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def exif(address: str | None) -> Image.Exif:
    """Metadata of WebP and JPEG."""
    tags = Image.Exif()
    tags[ExifTags.Base.Software] = SYNTHETIC
    if address is not None:
        tags[ExifTags.Base.ImageDescription] = address
    return tags
