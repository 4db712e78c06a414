"""Frechet distance between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance between the Gaussians fitted to ``a [N, D]``, ``b [M, D]``.

    Known as FID over Inception features (Heusel et al. 2017, https://arxiv.org/abs/1706.08500,
    equation 6). At least 0, lower is better; 0 for equal mean and covariance. It falls with N and
    M, so compare distances over the same numbers of images only. It does not show differences
    beyond mean and covariance. Raises ``ValueError`` for fewer than two
    rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a Gaussian cannot be fitted to fewer than two rows")
    a, b = a.double(), b.double()
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    cov_a, cov_b = torch.atleast_2d(a.T.cov(), b.T.cov())  # cov of one feature is a scalar
    # cov_a @ cov_b has the eigenvalues of a symmetric matrix, so they are real: the trace of its
    # root is the sum of their roots.
    root_a = _root(cov_a)
    eigenvalues = torch.linalg.eigvalsh(root_a @ cov_b @ root_a)
    cross = eigenvalues.clamp(min=0).sqrt().sum()
    return max(float(means + cov_a.trace() + cov_b.trace() - 2 * cross), 0.0)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
