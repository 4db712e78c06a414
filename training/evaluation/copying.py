"""Copies of training images among the samples of a snapshot, cheap enough for every snapshot.

Held-out images cannot have been copied. The nearest real image of a new sample is a held-out one as
often as chance has it, whatever the samples look like; of a copy, it is a training image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.data import Dataset
from training.evaluation.metrics.duplicates import thumbnails
from training.evaluation.metrics.nearest import nearest

MAX_IMAGES = 20_000
"""Training images that samples are compared with: 30 MB of thumbnails."""
PART = 512
"""Images whose pixels, or distances to all samples, are in memory at a time."""
DEVIATIONS = 3
"""Standard deviations of chance that are subtracted."""


class CopyCheck:
    """Thumbnails of training and held-out images."""

    def __init__(self, trained: Dataset, held_out: Dataset, device: torch.device) -> None:
        parts = []
        for dataset in (trained, held_out):
            rows = dataset.spread(MAX_IMAGES)
            for part in (rows[i : i + PART] for i in range(0, len(rows), PART)):
                parts.append(thumbnails(torch.from_numpy(dataset.images[part]).to(device)))
        self._thumbnails = torch.cat(parts)
        self._trained = min(len(trained), MAX_IMAGES)

    def share(self, samples: Tensor) -> float:
        """Share of training images among the nearest ones that chance does not explain, at least.

        0 to 1, of uint8 ``samples [N, H, W, C]``. The nearest images count once each, so that a
        generator that repeats one picture does not count as a copier.
        """
        found = nearest(thumbnails(samples), self._thumbnails.split(PART)).indices.unique()
        expected = 1 - self._trained / len(self._thumbnails)
        held_out = float((found >= self._trained).float().mean())
        chance = DEVIATIONS * math.sqrt((1 - expected) / (expected * len(found)))
        return max(1 - held_out / expected - chance, 0.0)
