"""Does a generator repeat its training images?

Samples always have some nearest training image. Whether it is too near is told by images that
training never saw: a generator that has learnt the kind of picture, not the pictures, comes as near
to the training images as these do, and no nearer (after the three-sample test of Meehan et al.
2020, https://arxiv.org/abs/2004.05675). Mirrored training images count as training images.
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
LOW = 0.01
"""The quantile that is compared: as near as only one image in a hundred is."""
UNLIKELY = 0.01
"""Below this probability, chance does not explain how near samples come."""

Embedding = Callable[[Tensor], Tensor]
"""uint8 images ``[N, H, W, channels]`` to rows ``[N, D]``."""


@dataclass(frozen=True)
class Neighbours:
    """The training image nearest to each of N images."""

    distances: Tensor
    """``[N]``, in the unit of the space."""
    indices: Tensor
    """``[N]``, into the training images."""
    mirrored: Tensor
    """bool ``[N]``: whether it is the mirrored training image that is so near."""

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
        """Which ``count`` of the images are nearest to a training image, the nearest first."""
        return self.distances.argsort(stable=True)[:count]


@dataclass(frozen=True)
class Memorisation:
    """How near samples come to training images, and how near images do that were not trained on."""

    space: str
    samples: Neighbours
    held_out: Neighbours

    @property
    def nearer(self) -> float:
        """Share of the samples that are nearer than the 1st percentile of held-out images."""
        return float((self.samples.distances < self.held_out.low).float().mean())

    @property
    def chance(self) -> float:
        """How likely so many samples would be among the nearest if they were held-out images.

        Of all samples and held-out images together, the nearest in a hundred are taken. Had both
        been dealt out at random, the number of samples among these would be hypergeometric; this is
        the probability of that many or more.
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
        return self.chance < UNLIKELY


def memorisation(
    space: str, embed: Embedding, trained: Tensor, held_out: Tensor, samples: Tensor
) -> Memorisation:
    """Compare uint8 images ``[N, H, W, channels]`` by Euclidean distances of what ``embed`` gives.

    Takes a time that grows with the number of training images times that of the others.
    """
    queries = embed(torch.cat([samples, held_out]))
    found = nearest(queries, _both_ways(embed, trained))
    neighbours = Neighbours(
        found.distances, found.indices % len(trained), found.indices >= len(trained)
    )
    ends = len(samples)
    return Memorisation(space, _part(neighbours, slice(ends)), _part(neighbours, slice(ends, None)))


def pixels(images: Tensor) -> Tensor:
    """Rows whose distances are the root mean squares of the differences of pixels, 0 to 255."""
    rows = images.flatten(1).float()
    return rows / math.sqrt(rows.shape[1])


def _both_ways(embed: Embedding, images: Tensor) -> Iterator[Tensor]:
    """Rows of all images, then of all images mirrored."""
    parts = images.split(PART)
    for number in tqdm(range(2 * len(parts)), "memorisation", unit="part", disable=None):
        part = parts[number % len(parts)]
        yield embed(part if number < len(parts) else part.flip(2))


def _part(neighbours: Neighbours, rows: slice) -> Neighbours:
    return Neighbours(
        neighbours.distances[rows], neighbours.indices[rows], neighbours.mirrored[rows]
    )
