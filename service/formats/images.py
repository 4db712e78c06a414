"""Single images, contact sheets and animations as PNG, WebP, JPEG and GIF.

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
from service.errors import AnswerTooLarge
from service.formats import marks, png
from service.formats.records import ImageRecord, record_of

SYNTHETIC = "synthetic"
Extension = Literal["png", "webp", "jpeg"]
EXTENSIONS: tuple[str, ...] = get_args(Extension)
FRAME_MS = 80
"""Duration of a frame of an animation; GIF allows multiples of 10 ms."""
LARGEST_SIDE = {"webp": 16_383, "jpeg": 65_500}


def encode(pixels: Pixels, extension: str, address: str | None) -> bytes:
    """Image file of ``pixels`` (uint8 ``[H, W, channels]``). PNG and WebP are lossless.

    Source and address are in XMP (see ``marks``), and in PNG text chunks, or in Exif for WebP and
    JPEG. Raises ``AnswerTooLarge`` for a sheet above the size limit of the format.
    """
    if extension == "png":
        text = {"Source": SYNTHETIC} | ({"Address": address} if address else {})
        return png.encode(pixels, text, marks.xmp(address))
    image = _picture(pixels)
    largest = LARGEST_SIDE.get(extension)
    if largest is not None and max(image.size) > largest:
        raise AnswerTooLarge(
            f"a sheet of {image.width}x{image.height} does not fit into {extension}, which allows "
            f"{largest} per side; request fewer images, or png"
        )
    buffer = io.BytesIO()
    marked = {"exif": _exif(address), "xmp": marks.xmp(address)}
    if extension == "webp":
        # Method 0 takes 1/30 of the default's time for files a few per cent larger.
        image.save(buffer, "WEBP", lossless=True, method=0, **marked)
    else:
        image.save(buffer, "JPEG", quality=95, **marked)
    return buffer.getvalue()


def png_record(frame: ImageInfo, pixels: Pixels) -> ImageRecord:
    """Record of an image with its PNG file."""
    assert frame.address is not None
    return record_of(frame, encode(pixels, "png", frame.address.url()))


def contact_sheet(images: Sequence[Pixels], columns: int | None = None) -> Pixels:
    """Grid of images, near-square or with ``columns``; empty cells are black."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    cells = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    cells[: len(images)] = images
    sheet = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width, channels)


def animation(frames: Sequence[Pixels], extension: str, address: str | None) -> bytes:
    """Endless animation as GIF with 256 colours per frame, or as lossless WebP.

    Source and ``address`` are in the comment of the GIF, or in the Exif of the WebP.
    """
    pictures = [_picture(frame) for frame in frames]
    options: dict[str, Any] = {"save_all": True, "duration": FRAME_MS, "loop": 0}
    buffer = io.BytesIO()
    if extension == "gif":
        # Pillow's default (median cut) loses the colour of eyes to that of hair.
        pictures = [
            picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1) for picture in pictures
        ]
        options["comment"] = f"{SYNTHETIC} {address or ''}".strip().encode("ascii")
    else:
        options |= {"lossless": True, "method": 0, "exif": _exif(address).tobytes()}
        options["xmp"] = marks.xmp(address)
    first, *rest = pictures
    first.save(buffer, extension, append_images=rest, **options)
    return buffer.getvalue()


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _exif(address: str | None) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SYNTHETIC
    if address is not None:
        exif[ExifTags.Base.ImageDescription] = address
    return exif
