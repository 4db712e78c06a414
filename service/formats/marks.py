"""Mark of synthetic images for machines: an XMP packet with IPTC's digital source type.

https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia; the properties are those of
the IPTC Photo Metadata Standard 2025.1, the packet is as in XMP (ISO 16684-1) without the wrapper.
"""

from __future__ import annotations

import asyncio
import html
import io
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image, UnidentifiedImageError

from service.core.image_info import Pixels
from service.errors import InvalidRequest

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SYSTEM = "Figment"
READABLE = ("PNG", "WEBP", "JPEG", "GIF")
MAX_PIXELS = 1 << 22
"""2,048 x 2,048: many times the size of an image of a model. Decoding takes at most 0.2 s as PNG,
WebP and GIF, and 0.5 s as JPEG with ``MAX_SCANS``."""
MAX_SCANS = 100
"""Progressive JPEG files have 10 or so. Each scan takes 4 ms for ``MAX_PIXELS``, and may have a few
bytes."""
MAX_SIDE = 1024
"""Longest side, in pixels, of a picture kept until the image at its address is made: 3 MB."""
MAX_METADATA_CHARACTERS = 1 << 18
"""Searching so many takes 0.1 s. A text chunk of PNG may have many times more than the file."""
_DECODER = ThreadPoolExecutor(1, "decoder")
"""So that all uploads together use one core, the memory of one, and no thread of other requests."""
_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
    f' Iptc4xmpExt:DigitalSourceType="{SYNTHETIC}"'
    "%s/></rdf:RDF></x:xmpmeta>"
)


def xmp(address: str | None) -> bytes:
    """XMP packet, UTF-8: source type, generator, and the address if there is one.

    The generator is the model and its version, as named in the address.
    """
    if address is None:
        return (_PACKET % f' Iptc4xmpExt:AISystemUsed="{SYSTEM}"').encode()
    _, _, model, version, _ = address.split("/", 4)
    return (
        _PACKET
        % (
            f' Iptc4xmpExt:AISystemUsed="{SYSTEM} {model}"'
            f' Iptc4xmpExt:AISystemVersionUsed="{version}"'
            f" dc:identifier={quoteattr(address)}"
        )
    ).encode()


_MARKER = re.compile(
    # XMP; Exif; PNG's `Source`, or a GIF's comment
    rf"{re.escape(SYNTHETIC)}|synthetic\0|^synthetic(?: /images/|$)",
    re.MULTILINE,
)
_ADDRESS = re.compile(
    r"(?<![\w.:/\]-])/images/[\w.-]+/\d+/\d+/\d+\.\w+(?:\?[^\x00-\x20\"'<>]*)?", re.ASCII
)
"""An address of this service, and not the path of a URL."""


async def read_in_thread(content: bytes) -> tuple[list[str] | None, Image.Image]:
    """Result of ``read``, in the one thread for it."""
    return await asyncio.get_running_loop().run_in_executor(_DECODER, read, content)


def read(content: bytes) -> tuple[list[str] | None, Image.Image]:
    """Addresses in the mark of an image file, None without a mark, and the picture.

    One address is that of the image; a sheet or an animation has those of its first and last image.
    The picture is RGB without transparency, and scaled down to ``MAX_SIDE``.

    Text chunks, comments and Exif are searched as well as XMP, since editors keep some and drop
    others. Raises ``InvalidRequest`` if ``content`` is not a whole PNG, WebP, JPEG or GIF file, or
    exceeds ``MAX_PIXELS`` or ``MAX_SCANS``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are checked here
        image = _open(content)
        try:
            picture = image.convert("RGB")
            picture.thumbnail((MAX_SIDE, MAX_SIDE))
        except Exception as error:  # Pillow's decoders raise whatever they meet
            raise InvalidRequest(f"the image is damaged: {_reason(error)}") from error
    # Exif as raw bytes: its texts are ASCII, and a parser would stumble over a damaged one.
    metadata = "\n".join(
        value if isinstance(value, str) else value.decode("utf-8", "replace")
        for value in image.info.values()
        if isinstance(value, str | bytes)
    )[:MAX_METADATA_CHARACTERS]
    if not _MARKER.search(metadata):
        return None, picture
    return list(dict.fromkeys(_ADDRESS.findall(html.unescape(metadata)))), picture


class Difference(NamedTuple):
    """Distance of a picture to an image."""

    largest: int
    """0 to 255."""
    smoothed: float
    """Largest difference of the mean of 2 x 2 pixels, 0 to 255."""
    relative: float
    """Mean difference, divided by the contrast of the image: its mean difference to its mean."""


def difference(picture: Image.Image, pixels: Pixels) -> Difference:
    """Difference of a picture to an image of a model.

    A picture of another size is scaled to that of ``pixels`` first.
    """
    height, width, channels = pixels.shape
    picture = picture.convert("RGB" if channels == 3 else "L")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    signed = np.asarray(picture, dtype=np.int16).reshape(pixels.shape) - pixels
    rows = signed[:-1] + signed[1:]
    squares = rows[:, :-1] + rows[:, 1:]
    contrast = np.abs(pixels - pixels.mean()).mean()
    return Difference(
        int(np.abs(signed).max()),
        float(np.abs(squares).max() / 4),
        float(np.abs(signed).mean() / max(contrast, 1)),
    )


def _open(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=READABLE)
    except Image.DecompressionBombError as error:
        raise InvalidRequest(f"the image is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise InvalidRequest(
            "the body is not a readable image: send a PNG, WebP, JPEG or GIF file"
        ) from error
    except Exception as error:  # whatever a damaged head causes
        raise InvalidRequest(f"the body is not a readable image: {_reason(error)}") from error
    if image.width * image.height > MAX_PIXELS:
        raise InvalidRequest(
            f"the image is too large: {image.width} x {image.height} pixels; at most "
            f"{MAX_PIXELS:,} are read"
        )
    scans = content.count(b"\xff\xda") if content.startswith(b"\xff\xd8") else 0
    if scans > MAX_SCANS:
        raise InvalidRequest(
            f"the JPEG file has {scans:,} scans; at most {MAX_SCANS} are read: save it anew"
        )
    return cast(Image.Image, image)


def _reason(error: Exception) -> str:
    if "MAX_TEXT" in str(error):  # PngImagePlugin.MAX_TEXT_CHUNK and MAX_TEXT_MEMORY
        return "too much text: a PNG file may have 1 MiB in a compressed chunk, 64 MiB in all"
    return str(error)[:200]
