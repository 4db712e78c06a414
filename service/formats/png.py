"""PNG encoder for small images: one filter and one fast compressor.

Pillow's encoder tries five filters on each row: six times the time for 5 % smaller files.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping

import deflate
import numpy as np

from service.core.image_info import Pixels
from service.formats.records import PNG_END, PNG_SIGNATURE

COLOUR_TYPES = {1: 0, 3: 2}
"""Grey and RGB (PNG specification, 11.2.1)."""
UP = 2
"""Filter (9.2): each byte minus the one above. The fastest; files are as small as with others."""
LEVEL = 1
XMP_START = b"iTXtXML:com.adobe.xmp\0\0\0\0\0"
"""Keyword; no compression, language or translated keyword (XMP specification, part 3, 1.1.5)."""


def encode(pixels: Pixels, text: Mapping[str, str], xmp: bytes = b"") -> bytes:
    """PNG file of ``pixels`` (uint8 ``[H, W, 1 or 3]``) with a text chunk per entry of ``text``.

    Keywords and texts are Latin-1. ``xmp``: an XMP packet, which gets a chunk as well.
    """
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    filtered = np.empty((height, 1 + width * channels), dtype=np.uint8)
    filtered[:, 0] = UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    parts = [_start(height, width, channels)]
    for keyword, value in text.items():
        parts.append(_chunk(b"tEXt%b\0%b" % (keyword.encode("latin-1"), value.encode("latin-1"))))
    if xmp:
        parts.append(_chunk(XMP_START + xmp))
    parts.append(_chunk(b"IDAT" + deflate.zlib_compress(filtered, LEVEL)))
    parts.append(PNG_END)
    return b"".join(parts)


@functools.lru_cache
def _start(height: int, width: int, channels: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    return PNG_SIGNATURE + _chunk(b"IHDR" + header)


def _chunk(content: bytes) -> bytes:
    """Chunk with length and checksum; the first four bytes of ``content`` are its type."""
    return b"%b%b%b" % (
        (len(content) - 4).to_bytes(4, "big"),
        content,
        deflate.crc32(content).to_bytes(4, "big"),
    )
