"""Images of tensors that a client sends."""

from __future__ import annotations

from dataclasses import dataclass

from service.core.image_info import ImageInfo
from service.core.latents import IndexRange
from service.inference.model import Model
from service.inference.source import Floats, ModelInputs, Values


@dataclass(frozen=True)
class TensorImages:
    """An ``ImageSource`` of a client's own inputs: ``latent [N, Z]`` and ``condition [N, C]``."""

    model: Model
    latent: Floats
    condition: Floats

    def ranges(self, chunk: range) -> list[IndexRange]:
        return []

    def model_inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        rows = slice(chunk.start, chunk.stop)
        infos = [ImageInfo(index, None, None) for index in chunk]
        return ModelInputs(self.latent[rows], self.condition[rows], infos)
