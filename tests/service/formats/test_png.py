from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.formats.png import encode

ADDRESS = "/images/anime-faces/2/3/0.png?label=red+eyes"


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    channels=st.sampled_from([1, 3]),
    smooth=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_readers_get_the_pixels_back(
    height: int, width: int, channels: int, smooth: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    if smooth:
        pixels = np.cumsum(pixels // 64, axis=0, dtype=np.uint8)
    content = encode(pixels, {"Source": "synthetic", "Address": ADDRESS})
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == {1: "L", 3: "RGB"}[channels]
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)
        assert image.info == {"Source": "synthetic", "Address": ADDRESS}


def test_a_large_sheet() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (2048, 8))
    pixels = np.stack([ramp, ramp.T[:2048], ramp[::-1]], axis=-1)
    with Image.open(io.BytesIO(encode(pixels, {}))) as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_chunks_are_as_the_specification_has_them(channels: int) -> None:
    """With nothing but zlib, for readers less forgiving than Pillow."""
    content = encode(np.zeros((3, 5, channels), dtype=np.uint8), {"Source": "synthetic"})
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        assert checksum == zlib.crc32(kind + data)
        chunks.append((kind, data))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[0][1]) == (5, 3, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    assert len(zlib.decompress(chunks[2][1])) == 3 * (1 + 5 * channels)
