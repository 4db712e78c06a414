"""Interpolation: images on a path through latent space between two images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.core.image_info import ImageInfo
from service.core.image_request import Method
from service.core.latents import IndexRange
from service.inference.model import Model
from service.inference.seeds import SeedImages
from service.inference.source import Floats, ModelInputs, Values


@dataclass(frozen=True)
class Interpolation:
    """``steps`` images from ``start`` to ``end``, sources of one image each.

    The first image is exactly that of ``start``, the last that of ``end``. A ``loop`` goes to the
    end and back without repeating the first image.
    """

    start: SeedImages
    end: SeedImages
    steps: int
    method: Method = "slerp"
    loop: bool = False

    @property
    def model(self) -> Model:
        return self.start.model

    def positions(self) -> list[float]:
        """t of every image, 0 at ``start`` and 1 at ``end``."""
        if not self.loop:
            return _evenly(self.steps)
        there = self.steps // 2 + 1
        back = self.steps - there
        return _evenly(there) + _evenly(back + 2)[-2:0:-1]

    def ranges(self, chunk: range) -> list[IndexRange]:
        """The two ends, for every chunk."""
        return [*self.start.ranges(range(1)), *self.end.ranges(range(1))]

    def model_inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        start = self.start.model_inputs(range(1), latent[:1], values[:1])
        end = self.end.model_inputs(range(1), latent[1:], values[1:])
        t = np.array(self.positions()[chunk.start : chunk.stop])
        blend = slerp if self.method == "slerp" else lerp
        (first,), (last,) = start.infos, end.infos
        infos = [
            _between(index, first, last, at) for index, at in zip(chunk, t.tolist(), strict=True)
        ]
        return ModelInputs(
            blend(start.latent, end.latent, t), lerp(start.condition, end.condition, t), infos
        )


def _between(index: int, start: ImageInfo, end: ImageInfo, t: float) -> ImageInfo:
    """Description of the image at ``t``. Only the ends have an address."""
    if t in (0, 1):
        nearest = end if t else start
        return ImageInfo(index, nearest.labels, nearest.address, t)
    return ImageInfo(index, _blended(start.labels, end.labels, t), None, t)


def _blended(
    start: dict[str, str] | None, end: dict[str, str] | None, t: float
) -> dict[str, Any] | None:
    """By attribute: the value if both ends have the same, else the share of each value."""
    if start is None or end is None:
        return None
    return {
        name: value if value == end[name] else {value: round(1 - t, 6), end[name]: round(t, 6)}
        for name, value in start.items()
    }


def lerp(start: Floats, end: Floats, t: npt.NDArray[np.float64]) -> Floats:
    """Linear interpolation between two rows ``[1, D]`` at ``t [N]``: ``[N, D]``.

    Exact at 0 and 1.
    """
    t = t[:, None]
    line: Floats = ((1 - t) * start + t * end).astype(np.float32)
    return line


def slerp(start: Floats, end: Floats, t: npt.NDArray[np.float64]) -> Floats:
    """Spherical interpolation between two rows ``[1, D]`` at ``t [N]``: ``[N, D]``.

    Keeps the norms typical of normal latents, which a straight line falls below (White 2016,
    https://arxiv.org/abs/1609.04468, section 2). Exact at 0 and 1. Falls back to ``lerp`` where the
    arc is not unique: between parallel or opposite rows, or with a row of zeros.
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
    """``count`` evenly spaced numbers from 0 to 1; [0] for a count of 1."""
    return [i / (count - 1) for i in range(count)] if count > 1 else [0.0] * count
