"""Precision, recall, density and coverage of two sets of features, by nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from training.evaluation.metrics.distances import distances

NEIGHBOURS = 5


class Manifold(NamedTuple):
    """Coverage of real images by samples and the reverse.

    Precision and recall: Kynkaanniemi et al. 2019 (https://arxiv.org/abs/1904.06991, section 2).
    Density and coverage: Naeem et al. 2020 (https://arxiv.org/abs/2002.09797, section 3). All are
    in [0, 1], except density, which may exceed 1. Higher is better; the best density is about 1.
    """

    precision: float
    """Share of the samples inside a neighbourhood of a real image."""
    recall: float
    """Share of the real images inside a neighbourhood of a sample."""
    density: float
    """Mean number of real images' neighbourhoods around a sample, divided by ``neighbours``."""
    coverage: float
    """Share of the real images with a sample inside their neighbourhood."""


def compare(real: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS) -> Manifold:
    """Compare ``samples [N, D]`` with ``real [M, D]``.

    The neighbourhood of an image is the ball up to its ``neighbours``-th nearest image of the same
    set. Raises ``ValueError`` if a set has at most ``neighbours`` rows.
    """
    if min(len(real), len(samples)) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {neighbours} images on each side")
    real_radii = _radii(real, neighbours)
    sample_radii = _radii(samples, neighbours)
    between = distances(real, samples)
    in_real = between <= real_radii[:, None]
    in_samples = between <= sample_radii[None, :]
    return Manifold(
        precision=float(in_real.any(dim=0).float().mean()),
        recall=float(in_samples.any(dim=1).float().mean()),
        density=float(in_real.float().sum(dim=0).mean() / neighbours),
        coverage=float(in_real.any(dim=1).float().mean()),
    )


def _radii(rows: Tensor, neighbours: int) -> Tensor:
    """Distance ``[N]`` from each row to its ``neighbours``-th nearest other row."""
    return distances(rows, rows).kthvalue(neighbours + 1, dim=1).values  # the first is itself
