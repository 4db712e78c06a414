"""Grids of images as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from service.formats.images import contact_sheet

CAPTION_WIDTH = 120
CAPTION_SIZE = 14
GAP = 8


def grid(images: npt.NDArray[np.uint8], columns: int | None = None) -> bytes:
    """PNG of ``images [N, H, W, C]`` in rows of ``columns`` (a near-square where None)."""
    return png(_sheet(images, columns))


def captioned_rows(images: npt.NDArray[np.uint8], captions: Sequence[str], scale: int = 1) -> bytes:
    """PNG of ``images [N, H, W, C]`` with one row for each caption, which is at its left.

    Images are enlarged by ``scale``.
    """
    sheet = _sheet(images, len(images) // len(captions))
    sheet = sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)
    picture = Image.new("RGB", (CAPTION_WIDTH + sheet.width, sheet.height), "white")
    picture.paste(sheet, (CAPTION_WIDTH, 0))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(CAPTION_SIZE)
    height = sheet.height / len(captions)
    for row, caption in enumerate(captions):
        middle = (CAPTION_WIDTH - 8, (row + 0.5) * height)
        draw.text(middle, caption, "black", font, anchor="rm")
    return png(picture)


def captioned_images(
    rows: Sequence[tuple[str, npt.NDArray[np.uint8], Sequence[Sequence[str]]]], scale: int
) -> bytes:
    """PNG of rows with a title, images ``[N, H, W, C]``, and lines of text below each image.

    Images are enlarged by ``scale``.
    """
    font = ImageFont.load_default(CAPTION_SIZE)
    line = 2 * CAPTION_SIZE - 8
    height, width = (scale * side for side in rows[0][1].shape[1:3])
    below = 1 + max(len(lines) for *_, captions in rows for lines in captions)
    step = height + (1 + below) * line
    columns = max(len(images) for _, images, _ in rows)
    picture = Image.new("RGB", (columns * (width + GAP), len(rows) * step), "white")
    draw = ImageDraw.Draw(picture)
    for row, (title, images, captions) in enumerate(rows):
        draw.text((0, row * step), title, "black", font)
        for column, (image, lines) in enumerate(zip(images, captions, strict=True)):
            x, y = column * (width + GAP), row * step + line
            picture.paste(_sheet(image[None], 1).resize((width, height), 0), (x, y))
            for number, text in enumerate(lines):
                while font.getlength(text) > width:
                    text = text[:-2] + "…"
                draw.text((x, y + height + number * line), text, "black", font)
    return png(picture)


def _sheet(images: npt.NDArray[np.uint8], columns: int | None) -> Image.Image:
    sheet = contact_sheet(list(images), columns)
    return Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)


def png(image: Image.Image) -> bytes:
    """Encode ``image`` as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
