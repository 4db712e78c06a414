"""Part of an image that is kept, and its size."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageColor


@dataclass(frozen=True)
class Framing:
    """Part of every image that is kept, and the size it is resized to."""

    size: int | None = None
    """Both sides in pixels after resizing; without it, images must be alike."""
    crop: int | None = None
    """Side in pixels of the central square that is kept; with ``size`` alone, the largest."""
    pad: str | None = None
    """Colour of the borders that make an image square, so that all of it is kept."""

    def apply(self, image: Image.Image) -> Image.Image:
        """Pad or crop, and resize. Raises ``ValueError`` if the image is smaller than ``crop``."""
        if self == Framing():
            return image
        square = self._crop(image) if self.pad is None else self._pad(image, self.pad)
        if self.size is None:
            return square
        # Lanczos keeps edges that a box would blur, and Pillow widens it when shrinking, so that
        # nothing aliases; large images are first averaged to three times the size, for speed.
        return square.resize((self.size, self.size), Image.Resampling.LANCZOS, reducing_gap=3)

    def _crop(self, image: Image.Image) -> Image.Image:
        side = self.crop or min(image.size)
        if side > min(image.size):
            raise ValueError(f"is {image.width}x{image.height}, too small for --crop {side}")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        # Cropped before it is resized: the filter would look beyond the edges of a `box`.
        return image.crop((left, top, left + side, top + side))

    def _pad(self, image: Image.Image, colour: str) -> Image.Image:
        side = max(image.size)
        square = Image.new(image.mode, (side, side), ImageColor.getcolor(colour, image.mode))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square
