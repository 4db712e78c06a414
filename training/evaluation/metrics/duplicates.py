"""Duplicates among samples, a sign of mode collapse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from training.evaluation.metrics.distances import distances

SIDE = 8


def thumbnails(images: Tensor) -> Tensor:
    """Flat 8x8 thumbnails, float ``[N, 64 * C]`` in [0, 1], of uint8 ``[N, H, W, C]``."""
    return adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, SIDE).flatten(1)


def duplicate_share(samples: Tensor, real: Tensor) -> float:
    """Share of ``samples`` that are nearer to another sample than real images are to each other.

    Both are thumbnails ``[N, D]`` and ``[M, D]``; the smaller number is used of both. The threshold
    is the 1st percentile of the distance between a real image and its nearest other one. Exact
    copies among real images are left out, because no sample could be nearer than a copy. From 0 to
    1, lower is better; about 0.01 if samples are as varied as the data.
    """
    count = min(len(samples), len(real))
    real, samples = real[:count], samples[:count]
    among_real = distances(real, real)
    among_real[among_real == 0] = torch.inf  # to itself and to copies
    threshold = among_real.min(dim=1).values.quantile(0.01)
    nearest = distances(samples, samples).fill_diagonal_(torch.inf).min(dim=1).values
    return float((nearest < threshold).float().mean())
