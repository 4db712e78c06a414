"""Kernel distance (KID) between two sets of features."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from torch import Tensor, nn

from training.core.device import CPU
from training.core.randomness import scoped_seed

SUBSETS = 100
SUBSET = 1000


class KernelDistance(NamedTuple):
    """Kernel distance, and its deviation over subsets."""

    value: float
    """Lower is better; about 0, or slightly below, for two sets of one distribution."""
    deviation: float | None
    """Standard deviation over the subsets, which overlap; None for a single subset."""


def kernel_distance(a: Tensor, b: Tensor) -> KernelDistance:
    """Squared maximum mean discrepancy under a cubic kernel, of ``a [N, D]`` and ``b [M, D]``.

    Known as KID over Inception features (Binkowski et al. 2018, https://arxiv.org/abs/1801.01401,
    section 4). Unbiased: its expectation for two sets of one distribution is 0 at every size, so
    it may be slightly negative. It is the mean over 100 subsets of 1,000 rows, drawn from a fixed
    seed; smaller sets are one subset. Raises ``ValueError`` for
    fewer than two rows.
    """
    # Imported here because it loads pyplot, which takes 0.5 s.
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(a), len(b), SUBSET)
    if size < 2:
        raise ValueError("a kernel distance needs two rows of each set")
    subsets = SUBSETS if max(len(a), len(b)) > size else 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance`")  # on memory
        metric = KernelInceptionDistance(feature=nn.Identity(), subsets=subsets, subset_size=size)
    metric.update(a.double().cpu(), real=True)
    metric.update(b.double().cpu(), real=False)
    with scoped_seed(0, "kernel distance", 0, CPU):
        mean, deviation = metric.compute()
    return KernelDistance(float(mean), float(deviation) if subsets > 1 else None)
