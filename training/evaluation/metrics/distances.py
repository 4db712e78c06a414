"""Distances between rows, exact where rows are nearly equal."""

from __future__ import annotations

import torch
from torch import Tensor


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, from each row of ``a [N, D]`` to each of ``b [M, D]``: ``[N, M]``.

    Computed as differences: the faster way through products puts a row at some distance from
    itself, and from its copies.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
