"""Line plots with Pillow, drawn three times as large and reduced, for smooth lines.

Lengths and positions are in pixels of the finished picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Floats = npt.NDArray[np.floating]
Point = tuple[float, float]
Box = tuple[int, int, int, int]

SCALE = 3
INK, FAINT, GRID = "#24292f", "#6e7781", "#e4e7eb"
TICK_SIZE, LABEL_SIZE = 13, 14


class Plot:
    """Inside of a panel, drawn as a separate image: points beyond its ranges are cut off.

    ``box`` is left, top, right, bottom; the first and last of the rising ticks are the ranges.
    """

    def __init__(self, box: Box, xticks: Sequence[float], yticks: Sequence[float]) -> None:
        self.box, self.xticks, self.yticks = box, xticks, yticks
        self.size = ((box[2] - box[0]) * SCALE, (box[3] - box[1]) * SCALE)
        self.image = Image.new("RGB", self.size, "white")
        self.draw = ImageDraw.Draw(self.image, "RGBA")  # blends colours with alpha
        for y in yticks:
            self.draw.line([self.at(xticks[0], y), self.at(xticks[-1], y)], GRID, SCALE)

    def at(self, x: float, y: float) -> Point:
        """Position of a point in ``image``, in its pixels."""
        left, right, bottom, top = self.xticks[0], self.xticks[-1], self.yticks[0], self.yticks[-1]
        return (
            (x - left) / (right - left) * self.size[0],
            (top - y) / (top - bottom) * self.size[1],
        )

    def line(self, xs: Floats, ys: Floats, colour: str) -> None:
        """Draw a line through ``(xs [N], ys [N])``; ``colour`` is #rrggbb."""
        self.draw.line(self._points(xs, ys), colour, 2 * SCALE, joint="curve")

    def area(self, xs: Floats, ys: Floats, colour: str) -> None:
        """Draw a line, and tint the area below it."""
        points = self._points(xs, ys)
        floor = self.size[1]
        self.draw.polygon([*points, (points[-1][0], floor), (points[0][0], floor)], f"{colour}30")
        self.line(xs, ys, colour)

    def _points(self, xs: Floats, ys: Floats) -> list[Point]:
        return [self.at(x, y) for x, y in zip(xs.tolist(), ys.tolist(), strict=True)]


class Canvas:
    """White picture of ``size`` (width, height), to which text and plots are added."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), "white")
        self.draw = ImageDraw.Draw(self.image)

    def text(self, at: Point, text: str, size: int, colour: str = INK, anchor: str = "mm") -> None:
        font = ImageFont.load_default(size * SCALE)
        self.draw.text((at[0] * SCALE, at[1] * SCALE), text, colour, font, anchor)

    def plot(self, plot: Plot) -> None:
        """Add a finished plot with its axes."""
        left, top, right, bottom = plot.box
        self.image.paste(plot.image, (left * SCALE, top * SCALE))
        for x in plot.xticks:
            position = left + plot.at(x, 0)[0] / SCALE
            self._stroke((position, bottom), (position, bottom + 5))
            self.text((position, bottom + 9), f"{x:,g}", TICK_SIZE, FAINT, "mt")
        for y in plot.yticks:
            position = top + plot.at(plot.xticks[0], y)[1] / SCALE
            self.text((left - 8, position), f"{y:g}", TICK_SIZE, FAINT, "rm")
        self._stroke((left, bottom), (right, bottom))

    def legend(self, height: int, entries: Sequence[tuple[str, str]]) -> None:
        """Draw names and their colours in one centred row."""
        font = ImageFont.load_default(LABEL_SIZE * SCALE)
        dash, gap, between = 24, 8, 30
        widths = [dash + gap + font.getlength(name) / SCALE for name, _ in entries]
        left = (self.size[0] - sum(widths) - between * (len(entries) - 1)) / 2
        for (name, colour), width in zip(entries, widths, strict=True):
            self._stroke((left, height), (left + dash, height), colour, 3)
            self.text((left + dash + gap, height), name, LABEL_SIZE, anchor="lm")
            left += width + between

    def finish(self) -> Image.Image:
        """Reduce the picture to its final size."""
        return self.image.resize(self.size, Image.Resampling.LANCZOS)

    def _stroke(self, start: Point, end: Point, colour: str = FAINT, width: int = 1) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in (start, end)]
        self.draw.line(scaled, colour, width * SCALE)
