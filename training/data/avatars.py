"""Cartoon faces drawn by the program: labelled data without errors and without a download.

Lengths are in pixels of the finished picture, measured from the middle of the face: x to the
right, y down.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.core.manifest import Attribute
from training.data.dataset import Dataset

T = TypeVar("T")
Colour = tuple[int, int, int]
Array = npt.NDArray[np.float64]
Outline = Sequence[tuple[float, float]]

SIZE = 64
SUPERSAMPLING = 4
SIDES = (16, 32, 64, 128)

COLOURS: dict[str, Colour] = {
    "aqua": (64, 212, 208),
    "black": (40, 37, 46),
    "blonde": (248, 218, 124),
    "blue": (52, 98, 222),
    "brown": (112, 66, 38),
    "gray": (142, 145, 154),
    "green": (66, 168, 76),
    "orange": (246, 132, 34),
    "pink": (252, 142, 190),
    "purple": (142, 76, 198),
    "red": (206, 38, 48),
    "white": (240, 240, 246),
    "yellow": (246, 206, 44),
}
SKINS = ((255, 232, 216), (252, 218, 194), (240, 196, 164), (218, 168, 134), (184, 134, 104))
CLOTHES = ((62, 68, 98), (94, 98, 112), (206, 200, 190), (110, 92, 104))
INK = (46, 32, 42)
WHITE = (255, 255, 255)

VALUES: dict[str, tuple[str, ...]] = {
    "hair": tuple(name for name in COLOURS if name != "yellow"),
    "eyes": tuple(name for name in COLOURS if name not in ("blonde", "gray", "white")),
    "style": ("bob", "buns", "curly", "long", "ponytail", "short", "spiky", "twintails"),
    "expression": ("angry", "happy", "neutral", "sad", "surprised"),
    "glasses": ("no", "yes"),
}

# Right halves, from top middle to bottom middle.
PLAIN_BACK = ((0, -22), (14, -17), (19, -4), (17.5, 7), (11, 12), (0, 14))
BOB_BACK = ((0, -22), (15, -18), (21.5, -5), (23, 8), (20.5, 17), (14, 19.5), (0, 17))
LONG_BACK = ((0, -22), (15, -17), (20, -4), (21, 12), (23.5, 26), (25, 40), (0, 40))
HEAD = ((0, -16), (10, -14), (15, -6), (16, 3), (14.5, 10), (9.5, 15.8), (3.5, 19), (0, 19.5))
BODY = ((0, 23), (8, 23.5), (17, 27), (20, 40), (0, 40))
# Smoothing makes a sharp tip of a point that is given twice.
TAIL = ((0, -1), (5, -3), (9, 3), (10, 14), (8, 25), (6, 32), (6, 32), (3, 24), (0, 12), (-1, 4))
# The right eye about its middle; y in units of its half height.
EYE = ((-5, 0), (-3.8, -0.8), (0, -1.05), (4, -0.8), (5.2, 0), (3.8, 0.8), (0, 1), (-3.6, 0.8))
LASHES_TOP = ((-5.4, -0.1), (-5.4, -0.1), (-4, -0.95), (0, -1.28), (4.2, -1), (6.6, -0.3))
LASHES_BOTTOM = ((6.6, -0.3), (4, -0.72), (0, -0.95), (-4, -0.7))
LASHES = LASHES_TOP + LASHES_BOTTOM
LOWER_LID = ((-2.6, 0.95), (0, 1.05), (3.4, 0.92))
EYE_X, EYE_Y = 8.3, 4.0

LOCK_ENDS = {"bob": 14, "buns": 9, "curly": 9, "long": 25, "ponytail": 10, "twintails": 12}
EYE_HALF_HEIGHTS = {"angry": 4.6, "happy": 5.0, "neutral": 5.0, "sad": 4.7, "surprised": 5.8}
# How far the inner and the outer end of a brow are lifted.
BROW_LIFTS = {
    "angry": (-1.6, 1.2),
    "happy": (0.4, 0.2),
    "neutral": (0.0, 0.0),
    "sad": (1.8, -0.9),
    "surprised": (1.9, 1.7),
}

STEPS = np.linspace(0, 1, 6, endpoint=False)
CATMULL_ROM = STEPS[:, None] ** np.arange(4) @ np.array(
    ((0, 1, 0, 0), (-0.5, 0, 0.5, 0), (1, -2.5, 2, -0.5), (-0.5, 1.5, -1.5, 0.5))
)
ANGLES = np.linspace(0, 2 * math.pi, 25)
CIRCLE = np.stack((np.cos(ANGLES), np.sin(ANGLES)), axis=1)


def draw(count: int = 8192, seed: int = 0, side: int = SIZE) -> Dataset:
    """Draw ``count`` faces as RGB images ``[count, side, side, 3]`` with labels ``[count, 5]``.

    Labelled, independent, each value equally likely: hair and eye colour, hair style,
    expression, glasses. Not labelled: skin, clothes, background, pose, fringe, iris size, gaze,
    brows, blush, and small shifts of the named colours. Image ``i`` depends on ``(seed, i)``
    alone. The vocabulary is always the whole of ``VALUES``, even where few images miss some.

    Raises:
        ValueError: ``count`` is below 1, ``seed`` below 0, or ``side`` none of ``SIDES``.
    """
    if side not in SIDES:
        raise ValueError(f"side must be one of {SIDES}, not {side}")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    images = np.empty((count, side, side, 3), dtype=np.uint8)
    labels = np.empty((count, len(VALUES)), dtype=np.int64)
    for index in range(count):
        dice = Dice(seed, index)
        chosen = choose_labels(dice)
        labels[index] = [values.index(chosen[name]) for name, values in VALUES.items()]
        canvas = render(chosen, dice)
        images[index] = np.asarray(canvas.reduce(canvas.width // side))
    attributes = tuple(
        Attribute(
            name=name,
            values=values,
            frequencies=tuple(np.bincount(column, minlength=len(values)) / count),
        )
        for (name, values), column in zip(VALUES.items(), labels.T, strict=True)
    )
    return Dataset("avatars", images, labels, attributes, licence="MIT (drawn by Figment)")


class Dice:
    """Random numbers for one image, the same under every release of NumPy."""

    def __init__(self, seed: int, index: int) -> None:
        # NumPy promises stable streams for SeedSequence, but not for Generator's methods.
        words = np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(64, np.uint64)
        self._fractions = iter(((words >> np.uint64(11)) * 2.0**-53).tolist())

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(next(self._fractions))

    def whole(self, low: int, high: int) -> int:
        """Whole number from ``low`` to ``high``, both included."""
        return int(self.between(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.whole(0, len(options) - 1)]

    def jitter(self, colour: Colour) -> Colour:
        red, green, blue = (min(max(part + round(self.between(-9, 9)), 0), 255) for part in colour)
        return red, green, blue


class Pen:
    """Draws shapes in coordinates of the face on the large canvas, in a random pose."""

    def __init__(self, canvas: Image.Image, dice: Dice) -> None:
        self._draw = ImageDraw.Draw(canvas)
        scale, tilt = SUPERSAMPLING * dice.between(1.0, 1.13), dice.between(-0.12, 0.12)
        cos, sin = scale * math.cos(tilt), scale * math.sin(tilt)
        self._rotation = np.array(((cos, sin), (-sin, cos)))
        middle = (SIZE / 2 + dice.between(-2, 2), 34 + dice.between(-1.5, 1.5))
        self._centre = np.array(middle) * SUPERSAMPLING

    def fill(self, points: Outline | Array, colour: Colour, edge: Colour | None = None) -> None:
        corners = self._on_canvas(points)
        self._draw.polygon(corners, fill=colour)
        if edge:
            self._draw.line(corners + corners[:2], fill=edge, width=round(0.75 * SUPERSAMPLING))

    def line(self, points: Outline | Array, colour: Colour, width: float) -> None:
        self._draw.line(self._on_canvas(points), fill=colour, width=round(width * SUPERSAMPLING))

    def _on_canvas(self, points: Outline | Array) -> list[float]:
        corners: list[float] = (np.asarray(points) @ self._rotation + self._centre).ravel().tolist()
        return corners


def choose_labels(dice: Dice) -> dict[str, str]:
    return {name: dice.pick(values) for name, values in VALUES.items()}


def render(labels: dict[str, str], dice: Dice) -> Image.Image:
    """Draw one face of 256x256, from back to front; ``dice`` draws what has no label."""
    hair, iris = (dice.jitter(COLOURS[labels[name]]) for name in ("hair", "eyes"))
    skin = dice.pick(SKINS)
    canvas = draw_background(dice)
    pen = Pen(canvas, dice)
    draw_hair_back(pen, labels["style"], hair, dice)
    draw_body(pen, skin, dice)
    draw_head(pen, skin, dice)
    draw_mouth(pen, labels["expression"], skin)
    draw_hair_front(pen, labels["style"], hair, skin, dice)
    # Eyes and brows lie on top of the hair, so that they always show.
    draw_eyes(pen, labels["expression"], iris, dice)
    draw_brows(pen, labels["expression"], hair, dice)
    if labels["glasses"] == "yes":
        draw_glasses(pen)
    return canvas


def draw_background(dice: Dice) -> Image.Image:
    size = (SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING)
    hue = dice.between(0, 1)
    top = Image.new("RGB", size, pastel(hue, 0.08))
    bottom = Image.new("RGB", size, pastel(hue + dice.between(-0.15, 0.15), 0.22))
    return Image.composite(bottom, top, Image.linear_gradient("L").resize(size))


def draw_hair_back(pen: Pen, style: str, hair: Colour, dice: Dice) -> None:
    """Draw the hair behind and around the head, which differs by style."""
    edge = mix(hair, INK, 0.5)
    half = {"bob": BOB_BACK, "long": LONG_BACK}.get(style, PLAIN_BACK)
    pen.fill(smooth(both_sides(half)), mix(hair, INK, 0.14), edge)
    if style == "buns":
        for side in (-1, 1):
            pen.fill(ellipse(side * 14.5, -19, 7.5, 7.5), hair, edge)
            pen.line(ellipse(side * 14.5, -19, 4, 4)[4:16], edge, 0.5)
    elif style == "curly":
        # All edges first, so that they are left around the whole and not around each curl.
        for radius, colour in ((6.5, edge), (5.8, hair)):
            for angle in np.linspace(0.76, 2.24, 12) * math.pi:
                x, y = 18.5 * math.cos(angle), 19 * math.sin(angle) - 3
                pen.fill(ellipse(x, y, radius, radius), colour)
    elif style == "spiky":
        for angle in np.linspace(0.95, 2.05, 9) * math.pi:
            pen.fill(spike(angle), hair, edge)
    elif style == "ponytail":
        side = dice.pick((-1, 1))
        pen.fill(smooth(np.array(TAIL) * (side, 1) + (side * 14, -19)), hair, edge)
    elif style == "twintails":
        for side in (-1, 1):
            pen.fill(smooth(np.array(TAIL) * (side, 1) + (side * 17, -12)), hair, edge)


def draw_body(pen: Pen, skin: Colour, dice: Dice) -> None:
    clothes = dice.pick(CLOTHES)
    pen.fill(smooth(both_sides(BODY)), clothes)
    pen.fill(((-5, 14), (5, 14), (5, 24), (0, 29), (-5, 24)), skin)
    pen.fill(((-5, 14), (5, 14), (5, 21), (0, 22.5), (-5, 21)), mix(skin, INK, 0.2))
    for side in (-1, 1):
        collar = ((side * 4.5, 21.5), (side * 9, 23.5), (side * 5, 29), (0, 27.5))
        pen.fill(collar, WHITE, mix(clothes, INK, 0.3))


def draw_head(pen: Pen, skin: Colour, dice: Dice) -> None:
    edge, blush = mix(skin, INK, 0.4), mix(skin, (255, 70, 90), dice.between(0, 0.3))
    for side in (-1, 1):
        pen.fill(ellipse(side * 16, 4.5, 2.6, 4), skin, edge)
    pen.fill(smooth(both_sides(HEAD)), skin, edge)
    for side in (-1, 1):
        pen.fill(ellipse(side * 11, 11, 3, 1.6), blush)
    pen.line(((-0.4, 9.2), (0.5, 9.8)), edge, 0.6)


def draw_mouth(pen: Pen, expression: str, skin: Colour) -> None:
    lips, inside = mix(skin, (90, 20, 40), 0.75), (150, 40, 56)
    if expression == "happy":
        pen.fill(smooth(((-4, 12), (-4, 12), (0, 12.6), (4, 12), (4, 12), (0, 16.8))), inside, lips)
        pen.fill(ellipse(0, 15.3, 1.8, 0.9), (240, 120, 126))
    elif expression == "surprised":
        pen.fill(ellipse(0, 14.2, 1.8, 2.4), inside, lips)
    elif expression == "angry":
        wave = ((-2.8, 14.6), (-1, 13.2), (1, 14.2), (2.8, 13.2))
        pen.line(smooth(wave, closed=False), lips, 0.9)
    elif expression == "sad":
        pen.line(smooth(((-3, 15), (0, 13.2), (3, 15)), closed=False), lips, 0.9)
    else:
        pen.line(((-2.2, 13.8), (2.2, 13.8)), lips, 0.8)


def draw_hair_front(pen: Pen, style: str, hair: Colour, skin: Colour, dice: Dice) -> None:
    """Draw the hair before the head, with its shadow on the forehead, strands and shine."""
    parting = dice.between(-9, 9)
    fringe = fringe_line(parting, dice)
    shadow = [(x, y + 1.5) for x, y in fringe]
    pen.fill([(14, -9), *shadow, (-14, -9)], mix(skin, INK, 0.2))
    end = LOCK_ENDS.get(style, 6)
    right = [(0, -22.6), (12.5, -18.5), (18.8, -8), (19.4, 2), (17, end), (17, end), (14.4, 2)]
    left = [(-x, y) for x, y in right[:0:-1]]
    pen.fill(smooth([*right, *fringe, *left]), hair, mix(hair, INK, 0.5))
    for x, y in fringe[3:-3:3]:
        pen.line(((x, y), (0.8 * x + 0.1 * parting, y - 5)), mix(hair, INK, 0.35), 0.5)
    draw_shine(pen, hair, parting)


def fringe_line(parting: float, dice: Dice) -> list[tuple[float, float]]:
    """Lower edge of the fringe from right to left: notches, and tips between them, given twice."""
    lowest, depth = dice.between(-4.5, -0.5), dice.between(2, 6)
    notches = np.linspace(14, -14, dice.whole(3, 6) + 1).tolist()
    line = [(14.0, -5.0)]
    for right, left in pairwise(notches):
        middle = (right + left) / 2
        away = 1.5 if middle > parting else -1.5
        tip = (middle + away, lowest + 0.012 * (middle - parting) ** 2)
        line += [tip, tip, (left, tip[1] - depth)]
    line[-1] = (-14.0, -5.0)
    return line


def draw_shine(pen: Pen, hair: Colour, parting: float) -> None:
    x = np.linspace(-12, 12, 13)
    upper = 0.03 * x**2 - 17
    teeth = np.where(np.arange(13) % 2, 3.0, 1.4) * np.sin(np.linspace(0, math.pi, 13))
    x = x + 0.2 * parting
    band = np.concatenate((np.stack((x, upper), 1), np.stack((x, upper + teeth), 1)[::-1]))
    # Black hair with much white in it would be grey.
    pen.fill(band, mix(hair, WHITE, 0.45 if max(hair) > 80 else 0.25))


def draw_eyes(pen: Pen, expression: str, iris: Colour, dice: Dice) -> None:
    half_height, radius = EYE_HALF_HEIGHTS[expression], dice.between(3.7, 4.3)
    gaze_x, gaze_y = dice.between(-0.7, 0.7), dice.between(-0.3, 0.3)
    for side in (-1, 1):
        middle, stretch = (side * EYE_X, EYE_Y), (side, half_height)
        pen.fill(smooth(np.array(EYE) * stretch + middle), WHITE)
        x, y = side * EYE_X + gaze_x, EYE_Y + gaze_y
        pen.fill(ellipse(x, y, radius, half_height), mix(iris, INK, 0.55))
        pen.fill(ellipse(x, y + 0.2, radius - 0.5, half_height - 0.6), iris)
        pen.fill(ellipse(x, y, 1.4, 2.0), mix(iris, INK, 0.85))
        pen.fill(ellipse(x, y + 3, 2.0, 1.0), mix(iris, WHITE, 0.35))
        pen.fill(ellipse(x - 1.6, y - 2.2, 1.2, 1.4), WHITE)
        pen.fill(ellipse(x + 1.6, y + 1.8, 0.6, 0.7), WHITE)
        pen.fill(smooth(np.array(LASHES) * stretch + middle), INK)
        lower_lid = np.array(LOWER_LID) * stretch + middle
        pen.line(smooth(lower_lid, closed=False), INK, 0.5)


def draw_brows(pen: Pen, expression: str, hair: Colour, dice: Dice) -> None:
    inner, outer = BROW_LIFTS[expression]
    y, width = dice.between(-5.2, -4), dice.between(0.7, 1.2)
    for side in (-1, 1):
        arch = y - 0.9 - (inner + outer) / 2
        brow = ((side * 4.5, y - inner), (side * 8.5, arch), (side * 12.5, y - outer))
        pen.line(smooth(brow, closed=False), mix(hair, INK, 0.7), width)


def draw_glasses(pen: Pen) -> None:
    for side in (-1, 1):
        pen.line(ellipse(side * EYE_X, EYE_Y + 0.4, 7.2, 7.2), INK, 0.8)
        pen.line(((side * 15.3, 3.4), (side * 18, 2.4)), INK, 0.8)
    pen.line(smooth(((-1.3, 3.4), (0, 2.8), (1.3, 3.4)), closed=False), INK, 0.8)


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """``colour`` with ``share`` (0 to 1) of ``other`` in it."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def pastel(hue: float, saturation: float) -> Colour:
    red, green, blue = (round(255 * x) for x in colorsys.hsv_to_rgb(hue % 1, saturation, 0.92))
    return red, green, blue


def ellipse(x: float, y: float, across: float, down: float) -> Array:
    return CIRCLE * (across, down) + (x, y)


def spike(angle: float) -> Array:
    """Outline of a pointed lock that stands away from the head and leans outwards."""
    tip = (27, angle + math.copysign(0.15, math.cos(angle)))
    ring = ((15, angle - 0.4), (20, angle - 0.2), tip, tip, (20, angle + 0.2), (15, angle + 0.4))
    return smooth([(r * math.cos(at), r * math.sin(at) - 3) for r, at in ring])


def both_sides(half: Outline) -> Outline:
    """Whole outline of its right ``half``, which runs from top middle to bottom middle."""
    return [*half, *((-x, y) for x, y in half[-2:0:-1])]


def smooth(points: Outline | Array, closed: bool = True) -> Array:
    """Catmull-Rom curve through the points."""
    knots = np.asarray(points, dtype=np.float64)
    before, after = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    knots = np.concatenate((before, knots, after))
    segments = np.stack((knots[:-3], knots[1:-2], knots[2:-1], knots[3:]), axis=1)
    curve: Array = (CATMULL_ROM @ segments).reshape(-1, 2)
    return curve
