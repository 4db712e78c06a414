"""Diversity of a set of images."""

from __future__ import annotations

from torch import Tensor

from training.evaluation.metrics.distances import distances


def diversity(features: Tensor) -> float:
    """Mean Euclidean distance between two different rows of ``features [N, D]``.

    At least 0, and 0 if all rows are equal; higher means more varied. Raises ``ValueError`` for
    fewer than two rows.
    """
    count = len(features)
    if count < 2:
        raise ValueError("the diversity of fewer than two images is not defined")
    return float(distances(features, features).sum() / (count * (count - 1)))
