"""The neighbours of one image in the latent space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from service.core.image_info import ImageInfo
from service.core.latents import IndexRange
from service.inference.model import Model
from service.inference.seeds import Floats, ModelInputs, SeedImages, Values


@dataclass(frozen=True)
class Variations:
    """Images around ``of``, which is one image, under its labels.

    The image at position i is at ``sqrt(1 - strength^2) z + strength w`` of the latent ``z`` of
    ``of`` and that of image i under ``seed``, ``w``: normal as both are, and correlated with ``z``.
    """

    of: SeedImages
    seed: int
    strength: float
    """Above 0; at 1, nothing of ``of`` is left but its labels."""

    @property
    def model(self) -> Model:
        return self.of.model

    def stretches(self, chunk: range) -> list[IndexRange]:
        return [*self.of.stretches(range(1)), IndexRange(self.seed, chunk.start, len(chunk))]

    def inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        centre = self.of.inputs(range(1), latent[:1], values[:1])
        kept = np.float32(math.sqrt(1 - self.strength**2))
        others = latent[1:] * np.float32(self.of.truncation)
        (frame,) = centre.frames
        return ModelInputs(
            kept * centre.latent + np.float32(self.strength) * others,
            np.repeat(centre.condition, len(chunk), axis=0),
            [ImageInfo(index, frame.labels, None) for index in chunk],
        )
