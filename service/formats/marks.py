"""Mark of synthetic images for machines: an XMP packet with IPTC's digital source type.

https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia; the properties are those of
the IPTC Photo Metadata Standard 2025.1, the packet is as in XMP (ISO 16684-1) without the wrapper.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from dataclasses import dataclass
from typing import cast
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

from service.core.image_info import Pixels
from service.errors import InvalidRequest

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SYSTEM = "Figment"
READABLE = ("PNG", "WEBP", "JPEG", "GIF")
MAX_PIXELS = 1 << 24
"""4,096 x 4,096: many times the size of an image of a model, and 50 MB when it is decoded."""
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


@dataclass(frozen=True)
class Mark:
    """What the metadata of a synthetic image says."""

    addresses: tuple[str, ...]
    """Address of the image; of a sheet or an animation, those of its first and last image."""


_ADDRESS = re.compile(r"/images/[\w.-]+/\d+/\d+/\d+\.\w+(?:\?[^\x00-\x20\"'<>]*)?", re.ASCII)


def read(content: bytes) -> Mark | None:
    """Mark of an image file; None if it has none. Pixels are not decoded.

    Text chunks, comments and Exif are searched as well as XMP, since editors keep some and drop
    others. Raises ``InvalidRequest`` if ``content`` is no PNG, WebP, JPEG or GIF file, or a larger
    one than ``MAX_PIXELS``.
    """
    image = _open(content)
    # Exif as raw bytes: its texts are ASCII, and a parser would stumble over a damaged one.
    metadata = "\n".join(
        value if isinstance(value, str) else value.decode("utf-8", "replace")
        for value in image.info.values()
        if isinstance(value, str | bytes)
    )
    addresses = tuple(dict.fromkeys(_ADDRESS.findall(html.unescape(metadata))))
    return Mark(addresses) if addresses or SYNTHETIC in metadata else None


def difference(content: bytes, pixels: Pixels) -> tuple[int, float]:
    """Largest and mean absolute difference, 0 to 255, between an image file and ``pixels``.

    An image of another size is scaled to that of ``pixels`` first, and transparency is dropped.
    Raises ``InvalidRequest`` as ``read`` does, and for a damaged file.
    """
    height, width, channels = pixels.shape
    image = _open(content)
    try:
        image.draft("RGB", (width, height))  # JPEG decodes large images at a fraction of their size
        picture = image.convert("RGB" if channels == 3 else "L")
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise InvalidRequest(f"the image is damaged: {str(error)[:200]}") from error
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    found = np.asarray(picture, dtype=np.int16).reshape(pixels.shape)
    differences = np.abs(found - pixels)
    return int(differences.max()), float(differences.mean())


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are checked here
        try:
            image = Image.open(io.BytesIO(content), formats=READABLE)
        except Image.DecompressionBombError as error:
            raise InvalidRequest(f"the image is too large: {error}") from error
        except Exception as error:  # UnidentifiedImageError, and whatever a damaged head causes
            raise InvalidRequest(
                "the body is no image that can be read: send a PNG, WebP, JPEG or GIF file"
            ) from error
    if image.width * image.height > MAX_PIXELS:
        raise InvalidRequest(
            f"the image is too large: {image.width} x {image.height} pixels; at most "
            f"{MAX_PIXELS:,} are read"
        )
    return cast(Image.Image, image)
