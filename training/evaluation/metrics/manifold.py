"""How two sets of features cover each other, by nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from training.evaluation.metrics.distances import distances

NEIGHBOURS = 5


class Manifold(NamedTuple):
    """Precision and recall after Kynkaanniemi et al. 2019 (https://arxiv.org/abs/1904.06991,
    section 2), density and coverage after Naeem et al. 2020 (https://arxiv.org/abs/2002.09797,
    section 3). All lie in [0, 1] but density, which may exceed 1."""

    precision: float
    """Share of the samples that lie within the real images' neighbourhoods."""
    recall: float
    """Share of the real images that lie within the samples' neighbourhoods."""
    density: float
    """How many of the real images' neighbourhoods a sample lies in, over what is expected."""
    coverage: float
    """Share of the real images with a sample in their neighbourhood."""


def compare(real: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS) -> Manifold:
    """Compare ``samples [N, D]`` with ``real [M, D]``.

    An image's neighbourhood is the ball that reaches to its ``neighbours``-th nearest fellow.
    Raises ``ValueError`` where there are no more rows than that.
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
    """The distance from each row to its ``neighbours``-th nearest other row."""
    return distances(rows, rows).kthvalue(neighbours + 1, dim=1).values  # itself is the first
