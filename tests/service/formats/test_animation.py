from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from service.formats import animation

WIDTH, HEIGHT = 24, 16
ADDRESS = "/images/faces/1/3/0.png .. /images/faces/1/4/0.png?label=" + "long+" * 100


def frames(channels: int) -> list[Any]:
    """Frames of two gradients that move."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return [
        np.stack([(5 * rows + step) % 256, 9 * columns, 0 * rows], axis=-1)[..., :channels].astype(
            np.uint8
        )
        for step in range(0, 60, 20)
    ]


def film(shown: list[Any], extension: str) -> bytes:
    parts = [animation.encode_frame(pixels, extension) for pixels in shown]
    return animation.join(parts, shown[0].shape, extension, ADDRESS)


@pytest.mark.parametrize(
    ("extension", "channels", "lost"),
    [("webp", 3, 0), ("webp", 1, 0), ("gif", 1, 0), ("gif", 3, 8)],
)
def test_film_shows_its_frames_for_ever(extension: str, channels: int, lost: int) -> None:
    """A colour GIF has 256 colours a frame; the others lose nothing."""
    shown = frames(channels)
    with Image.open(io.BytesIO(film(shown, extension))) as image:
        assert image.format == extension.upper()
        assert image.size == (WIDTH, HEIGHT)
        assert image.info["loop"] == 0
        found = []
        for frame in ImageSequence.Iterator(image):
            found.append(np.asarray(frame.convert("RGB")).astype(int))
            assert frame.info["duration"] == animation.FRAME_MS
    assert len(found) == len(shown)
    for pixels, expected in zip(found, shown, strict=True):
        assert np.abs(pixels - expected).max() <= lost


def test_film_has_its_source_and_address() -> None:
    with Image.open(io.BytesIO(film(frames(3), "gif"))) as gif:
        assert gif.info["comment"].decode() == f"synthetic {ADDRESS}"
    with Image.open(io.BytesIO(film(frames(3), "webp"))) as webp:
        assert set(webp.getexif().values()) == {"synthetic", ADDRESS}
