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

from training.metrics.nearest import nearest

PART = 512
LOW = 0.01
"""The quantile that is compared: as near as only one image in a hundred is."""

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
        """Share of the samples that are nearer than the 1st percentile of held-out images.

        0.01 is expected of a generator that does not memorise.
        """
        return float((self.samples.distances < self.held_out.low).float().mean())


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
    for part in images.split(PART):
        yield embed(part)
    for part in images.split(PART):
        yield embed(part.flip(2))


def _part(neighbours: Neighbours, rows: slice) -> Neighbours:
    return Neighbours(
        neighbours.distances[rows], neighbours.indices[rows], neighbours.mirrored[rows]
    )
