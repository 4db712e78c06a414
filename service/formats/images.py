"""Single images and contact sheets as PNG, WebP and JPEG.

Each file says that it is synthetic and where it can be had again. Nothing that changes from one day
to the next goes in, so the same address gives the same bytes.
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
from service.formats import png
from service.formats.records import ImageRecord, record_of

SYNTHETIC = "synthetic"
Extension = Literal["png", "webp", "jpeg"]
EXTENSIONS: tuple[str, ...] = get_args(Extension)
FRAME_MS = 80
"""How long an animation shows each frame; GIF knows hundredths of a second."""
LARGEST_SIDE = {"webp": 16_383, "jpeg": 65_500}


def encode(pixels: Pixels, extension: str, address: str | None) -> bytes:
    """``pixels [H, W, channels]`` as a file. PNG and WebP lose nothing.

    PNG carries text chunks ``Source`` and ``Address``; WebP and JPEG the same in Exif. Raises
    ``AnswerTooLarge`` for a sheet that is larger than the format allows.
    """
    if extension == "png":
        return png.encode(pixels, {"Source": SYNTHETIC} | ({"Address": address} if address else {}))
    image = _picture(pixels)
    largest = LARGEST_SIDE.get(extension)
    if largest is not None and max(image.size) > largest:
        raise AnswerTooLarge(
            f"a sheet of {image.width}x{image.height} does not fit into {extension}, which ends at "
            f"{largest} a side; ask for fewer images, or for png"
        )
    buffer = io.BytesIO()
    if extension == "webp":
        # Method 0 takes a thirtieth of the time of the default for files a few per cent larger.
        image.save(buffer, "WEBP", lossless=True, method=0, exif=_exif(address))
    else:
        image.save(buffer, "JPEG", quality=95, exif=_exif(address))
    return buffer.getvalue()


def png_record(frame: ImageInfo, pixels: Pixels) -> ImageRecord:
    """An image of a set, encoded."""
    assert frame.address is not None
    return record_of(frame, encode(pixels, "png", frame.address.url()))


def contact_sheet(images: Sequence[Pixels], columns: int | None = None) -> Pixels:
    """Images side by side in a near-square, or in rows of ``columns``; empty places are black."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    places = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    places[: len(images)] = images
    sheet = places.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width, channels)


def animation(frames: Sequence[Pixels], extension: str, address: str | None) -> bytes:
    """``frames``, one after another for ever, as GIF, in 256 colours each, or as lossless WebP.

    Both say that they are synthetic, and ``address``: GIF in its comment, WebP in Exif.
    """
    pictures = [_picture(frame) for frame in frames]
    options: dict[str, Any] = {"save_all": True, "duration": FRAME_MS, "loop": 0}
    buffer = io.BytesIO()
    if extension == "gif":
        # Pillow's default, by the median, takes the colour out of eyes for that of hair.
        pictures = [
            picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1) for picture in pictures
        ]
        options["comment"] = f"{SYNTHETIC} {address or ''}".strip().encode("ascii")
    else:
        options |= {"lossless": True, "method": 0, "exif": _exif(address).tobytes()}
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
