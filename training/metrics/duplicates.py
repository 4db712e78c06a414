"""Samples that are the same picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 8


def thumbnails(images: Tensor) -> Tensor:
    """uint8 ``[N, H, W, C]`` to 8x8 means in [0, 1], flat: float ``[N, 64 * C]``."""
    return adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, SIDE).flatten(1)


def duplicate_share(samples: Tensor, real: Tensor) -> float:
    """Share of ``samples`` that are nearer to another sample than real images are to each other.

    Both are thumbnails ``[N, D]``, of as many images. "Than real images are": than the 1st
    percentile of a real image's distance to its nearest other. About 0.01 where samples are as
    varied as the data.
    """
    count = min(len(samples), len(real))
    threshold = _nearest(real[:count]).quantile(0.01)
    return float((_nearest(samples[:count]) < threshold).float().mean())


def _nearest(rows: Tensor) -> Tensor:
    # Computed as differences: the faster way through products is not exact near 0.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(float("inf")).min(dim=1).values
