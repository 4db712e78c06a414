"""Variations: neighbours of one image in latent space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from service.core.image_info import ImageInfo
from service.core.latents import IndexRange
from service.inference.model import Model
from service.inference.seeds import SeedImages
from service.inference.source import Floats, ModelInputs, Values


@dataclass(frozen=True)
class Variations:
    """Images near ``of``, a source of one image, with its labels.

    The latent of the image at position i is ``sqrt(1 - strength^2) z + strength w``, where ``z`` is
    the latent of ``of`` and ``w`` that of image i of ``seed``. It is normal, as both are, and
    correlated with ``z``.
    """

    of: SeedImages
    seed: int
    strength: float
    """Above 0, at most 1; at 1, only the labels of ``of`` remain."""

    @property
    def model(self) -> Model:
        return self.of.model

    def ranges(self, chunk: range) -> list[IndexRange]:
        return [*self.of.ranges(range(1)), IndexRange(self.seed, chunk.start, len(chunk))]

    def model_inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        centre = self.of.model_inputs(range(1), latent[:1], values[:1])
        kept = np.float32(math.sqrt(1 - self.strength**2))
        others = latent[1:] * np.float32(self.of.truncation)
        (info,) = centre.infos
        return ModelInputs(
            kept * centre.latent + np.float32(self.strength) * others,
            np.repeat(centre.condition, len(chunk), axis=0),
            [ImageInfo(index, info.labels, None) for index in chunk],
        )
