"""Memorisation: a test for samples that repeat training images.

Every sample has a nearest training image. Held-out images show which distance is normal: samples of
a generator that copies nothing are about as near to the training images as held-out images are
(after the three-sample test of Meehan et al. 2020, https://arxiv.org/abs/2004.05675). Mirrored
training images count as training images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from training.evaluation.metrics.nearest import nearest

PART = 512
"""Training images whose features are on the device at a time."""
LOW = 0.01
"""Quantile of the distances that is compared: the nearest image in a hundred."""
SIGNIFICANCE = 0.01
"""Level of the test: samples are suspicious if ``chance`` is below it."""

Embedding = Callable[[Tensor], Tensor]
"""uint8 images ``[N, H, W, channels]`` to rows ``[N, D]``."""


@dataclass(frozen=True)
class Neighbours:
    """Nearest training image of each of N images."""

    distances: Tensor
    """``[N]``, at least 0, in the unit of the space."""
    indices: Tensor
    """``[N]``, into the training images."""
    mirrored: Tensor
    """bool ``[N]``: True if the nearest one is a mirrored training image."""

    @property
    def low(self) -> float:
        """The 1st percentile of the distances."""
        return float(self.distances.quantile(LOW))

    @property
    def minimum(self) -> float:
        return float(self.distances.min())

    @property
    def median(self) -> float:
        return float(self.distances.median())

    def worst(self, count: int) -> Tensor:
        """Indices of the ``count`` images nearest to a training image, the nearest first."""
        return self.distances.argsort(stable=True)[:count]


@dataclass(frozen=True)
class Memorisation:
    """Nearest training images of samples and of held-out images, in one space."""

    space: str
    samples: Neighbours
    held_out: Neighbours

    @property
    def nearer(self) -> float:
        """Share of the samples that are nearer than the 1st percentile of held-out images."""
        return float((self.samples.distances < self.held_out.low).float().mean())

    @property
    def chance(self) -> float:
        """Probability that as many samples are among the nearest by chance: a p-value, 0 to 1.

        The test takes the nearest 1 % of all samples and held-out images together. If samples and
        held-out images were assigned at random, the number of samples among these would be
        hypergeometric. The result is the probability of that many or more.
        """
        ours, theirs = self.samples.distances, self.held_out.distances
        pooled = torch.cat([ours, theirs])
        taken = max(round(LOW * len(pooled)), 1)
        found = int((pooled.argsort(stable=True)[:taken] < len(ours)).sum())
        ways = math.comb(len(pooled), taken)
        more = (
            math.comb(len(ours), k) * math.comb(len(theirs), taken - k)
            for k in range(found, taken + 1)
        )
        return sum(more) / ways

    @property
    def suspicious(self) -> bool:
        """True if the samples are nearer than chance explains."""
        return self.chance < SIGNIFICANCE


def memorisation(
    space: str, embed: Embedding, trained: Tensor, held_out: Tensor, samples: Tensor
) -> Memorisation:
    """Compare uint8 images ``[N, H, W, channels]`` by Euclidean distances of their embeddings.

    Time grows with the number of training images times the number of the others.
    """
    queries = embed(torch.cat([samples, held_out]))
    found = nearest(queries, _with_mirrored(embed, trained))
    neighbours = Neighbours(
        found.distances, found.indices % len(trained), found.indices >= len(trained)
    )
    ends = len(samples)
    return Memorisation(space, _part(neighbours, slice(ends)), _part(neighbours, slice(ends, None)))


def pixels(images: Tensor) -> Tensor:
    """Rows ``[N, D]`` whose distance is the root mean square difference of pixels, 0 to 255."""
    rows = images.flatten(1).float()
    return rows / math.sqrt(rows.shape[1])


def _with_mirrored(embed: Embedding, images: Tensor) -> Iterator[Tensor]:
    """Yield the rows of all images, then of all images mirrored."""
    parts = images.split(PART)
    for number in tqdm(range(2 * len(parts)), "memorisation", unit="part", disable=None):
        part = parts[number % len(parts)]
        yield embed(part if number < len(parts) else part.flip(2))


def _part(neighbours: Neighbours, rows: slice) -> Neighbours:
    return Neighbours(
        neighbours.distances[rows], neighbours.indices[rows], neighbours.mirrored[rows]
    )
