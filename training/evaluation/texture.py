"""Texture of a set of images, and how far it is from that of real images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from training.evaluation.metrics.pyramid import Projections, project, pyramid_distances
from training.evaluation.metrics.spectrum import decibels, powers


@dataclass(frozen=True)
class Texture:
    """What a comparison needs to know of a set of images."""

    patches: Projections
    fine: float
    hatch: float

    @classmethod
    def of(cls, images: Tensor) -> Texture:
        """Texture of uint8 ``images [N, H, W, C]``."""
        return cls(project(images), *powers(images))


@dataclass(frozen=True)
class TextureScores:
    """Distance of one texture from another, over as many images."""

    pyramid: dict[int, float]
    """Distance between patches at each level, by its height in pixels."""
    fine: float
    """Power of fine details, in decibels above that of real images."""
    hatch: float
    """Power of patterns like a checkerboard, likewise."""

    def line(self) -> dict[str, float]:
        """Flat entry for a log or a table."""
        levels = {f"pyramid_{side}": distance for side, distance in self.pyramid.items()}
        return levels | {"fine": self.fine, "hatch": self.hatch}


def compare(real: Texture, samples: Texture) -> TextureScores:
    """Compare the texture of ``samples`` with that of as many ``real`` images."""
    return TextureScores(
        pyramid=pyramid_distances(samples.patches, real.patches),
        fine=decibels(samples.fine, real.fine),
        hatch=decibels(samples.hatch, real.hatch),
    )
