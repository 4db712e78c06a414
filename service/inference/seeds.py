"""Images of one seed: the source behind ``/generate``, ``/images`` and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.core.address import Address
from service.core.image_info import ImageInfo
from service.core.labels import Choice, ParsedLabel
from service.core.latents import IndexRange
from service.inference.model import Model
from service.inference.source import Floats, ModelInputs, Values


@dataclass(frozen=True)
class SeedImages:
    """Images of a seed at rising ``indices``.

    The image at index i uses entry ``i mod len`` of ``labels``; attributes without a requested
    value are drawn.
    """

    model: Model
    seed: int
    indices: Sequence[int]
    labels: Sequence[ParsedLabel] = ()
    truncation: float = 1.0
    verify: bool = False
    """Report the verifier's probability of every requested value, or else of every drawn one."""

    def ranges(self, chunk: range) -> list[IndexRange]:
        return [
            IndexRange(self.seed, run.start, len(run))
            for run in _runs(self.indices[chunk.start : chunk.stop])
        ]

    def model_inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        vocabulary = self.model.vocabulary
        indices = self.indices[chunk.start : chunk.stop]
        if self.labels:
            for row, index in zip(values, indices, strict=True):
                for attribute, value in self._choice(index).items():
                    row[attribute] = value
        infos = [
            ImageInfo(index, vocabulary.names(row) or None, self.address(index))
            for index, row in zip(indices, values.tolist(), strict=True)
        ]
        if self.truncation != 1:
            latent = latent * np.float32(self.truncation)
        verify = None
        if self.verify:
            verify = [
                self._choice(index) or dict(enumerate(row))
                for index, row in zip(indices, values.tolist(), strict=True)
            ]
        return ModelInputs(latent, vocabulary.condition(values), infos, verify)

    def address(self, index: int) -> Address:
        """Permanent address of the image at ``index``."""
        return Address(
            model=self.model.name,
            version=self.model.version,
            seed=self.seed,
            index=index,
            label=self.labels[index % len(self.labels)].phrase if self.labels else None,
            truncation=self.truncation,
        )

    def _choice(self, index: int) -> Choice:
        return self.labels[index % len(self.labels)].choice if self.labels else {}


def _runs(indices: Sequence[int]) -> list[range]:
    """Rising ``indices`` as ranges without gaps."""
    if isinstance(indices, range):
        return [indices]
    runs: list[range] = []
    for index in indices:
        if runs and runs[-1].stop == index:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs
