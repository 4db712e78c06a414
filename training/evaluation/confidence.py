"""Confidence intervals of a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook of
# Statistical Methods, https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm).
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and its 95 % confidence interval; bounds are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of ``values``, one for each seed, and its interval by Student's t.

    More than 31 values use the t of 31, which is at most 5 % too wide.
    """
    mean, seeds = fmean(values), len(values)
    if seeds == 1:
        return Estimate(mean, None, None, seeds)
    half = T_95[min(seeds - 1, len(T_95)) - 1] * stdev(values) / math.sqrt(seeds)
    return Estimate(mean, mean - half, mean + half, seeds)
