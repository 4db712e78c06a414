"""Samples of a generator by position, made when a classifier first asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.core import latents
from service.core.manifest import Attribute
from training.networks.networks import Generator
from training.runs import sampling

BLOCK = 512
"""Samples made at a time, always the same ones together: rounding may depend on the batch."""


class Labelled(NamedTuple):
    """Images uint8 ``[N, H, W, channels]`` and their labels int64 ``[N, A]``."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass
class Samples:
    """Endless samples: position ``i`` is image ``i mod limit`` of one seed.

    ``limit`` bounds memory. All classifiers share what has been made.
    """

    make: Callable[[int, int], Labelled]
    """(first index, count) to images and the labels that were requested."""
    limit: int
    _blocks: list[Labelled] = field(default_factory=list)

    def take(self, first: int, count: int) -> Labelled:
        """Samples at the positions ``first .. first + count - 1``."""
        return self.at(np.arange(first, first + count))

    def at(self, positions: npt.NDArray[np.intp]) -> Labelled:
        """Samples at ``positions [N]``."""
        indices = positions % self.limit
        while len(self._blocks) * BLOCK <= indices.max(initial=-1):
            start = len(self._blocks) * BLOCK
            self._blocks.append(self.make(start, min(BLOCK, self.limit - start)))
        pairs = [(self._blocks[i // BLOCK], i % BLOCK) for i in indices.tolist()]
        return Labelled(
            np.stack([block.images[row] for block, row in pairs]),
            np.stack([block.labels[row] for block, row in pairs]),
        )


def samples_of(
    generator: Generator, attributes: tuple[Attribute, ...], seed: int, limit: int
) -> Samples:
    """Images 0 to ``limit - 1`` of ``seed``, labels drawn by frequency, as the service gives."""

    def make(first: int, count: int) -> Labelled:
        labels = latents.draw_labels(seed, first, count, attributes)
        latent = latents.latents(seed, first, count, generator.latent_size)
        return Labelled(sampling.sample(generator, latent, labels, attributes), labels)

    return Samples(make, limit)
