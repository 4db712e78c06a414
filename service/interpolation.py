"""The way from one image to another through the latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.sampling import Frame, Samples

Method = Literal["slerp", "lerp"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Interpolation:
    """``steps`` images from ``start`` to ``end``, both of one image; the ends are those exactly.

    A loop goes to the end and back without repeating the first image.
    """

    start: Samples
    end: Samples
    steps: int
    method: Method = "slerp"
    loop: bool = False

    def positions(self) -> list[float]:
        """t of every frame, 0 at ``start`` and 1 at ``end``."""
        if not self.loop:
            return _evenly(self.steps)
        there = self.steps // 2 + 1
        back = self.steps - there
        return _evenly(there) + _evenly(back + 2)[-2:0:-1]

    def frames(self, chunk: range) -> list[Frame]:
        """Compute the frames at the positions ``chunk``."""
        t = np.array(self.positions()[chunk.start : chunk.stop])
        (z0, c0), (z1, c1) = self.start.inputs(), self.end.inputs()
        blend = slerp if self.method == "slerp" else lerp
        images = self.start.model.generate(blend(z0, z1, t), lerp(c0, c1, t))
        return [self._frame(pixels, at) for pixels, at in zip(images, t.tolist(), strict=True)]

    def _frame(self, pixels: npt.NDArray[np.uint8], t: float) -> Frame:
        address = None
        if t in (0, 1):
            address = (
                self.end.address(self.end.offset) if t else self.start.address(self.start.offset)
            )
        return Frame(pixels, self._labels(t), address, t)

    def _labels(self, t: float) -> dict[str, Any] | None:
        """A value where both ends agree, else the share of each."""
        (start,), (end,) = self.start.labels(), self.end.labels()
        if t in (0, 1):
            return (end if t else start) or None
        blended = {
            name: value if value == end[name] else {value: round(1 - t, 6), end[name]: round(t, 6)}
            for name, value in start.items()
        }
        return blended or None


def lerp(start: Floats, end: Floats, t: npt.NDArray[np.float64]) -> Floats:
    """The straight line between two rows ``[1, D]`` at positions ``t [N]``: ``[N, D]``.

    Exactly the ends at 0 and 1.
    """
    t = t[:, None]
    line: Floats = ((1 - t) * start + t * end).astype(np.float32)
    return line


def slerp(start: Floats, end: Floats, t: npt.NDArray[np.float64]) -> Floats:
    """The great arc between two rows ``[1, D]`` at positions ``t [N]``: ``[N, D]``.

    Keeps to the lengths that normal latents have, which the straight line undercuts (White 2016,
    https://arxiv.org/abs/1609.04468, section 2). Exactly the ends at 0 and 1. Where there is no one
    arc, between rows of one direction or opposite ones or from zero, it is the straight line.
    """
    lengths = [np.linalg.norm(row.astype(np.float64)) for row in (start, end)]
    if 0 in lengths:
        return lerp(start, end, t)
    cosine = np.sum(start.astype(np.float64) * end) / (lengths[0] * lengths[1])
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:
        return lerp(start, end, t)
    weights = np.stack([np.sin((1 - t) * angle), np.sin(t * angle)]) / np.sin(angle)
    weights[:, t == 0], weights[:, t == 1] = [[1], [0]], [[0], [1]]
    arc: Floats = (weights[0][:, None] * start + weights[1][:, None] * end).astype(np.float32)
    return arc


def _evenly(count: int) -> list[float]:
    """``count`` numbers from 0 to 1; just 0 for a count of 1."""
    return [i / (count - 1) for i in range(count)] if count > 1 else [0.0] * count
