"""The nearest neighbours of some rows among many others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Nearest(NamedTuple):
    distances: Tensor
    """Euclidean, ``[N]``."""
    indices: Tensor
    """int64 ``[N]``: which row, counted over all parts."""


def nearest(queries: Tensor, parts: Iterable[Tensor]) -> Nearest:
    """For each of ``queries [N, D]`` the nearest row of all ``parts [M, D]``, of which one is held
    at a time."""
    best = torch.full((len(queries),), torch.inf, device=queries.device)
    indices = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    seen = 0
    for rows in parts:
        # By products, which is fast and errs in the last digits: good enough to find the nearest.
        squares = rows.square().sum(dim=1) - 2 * queries @ rows.T  # but for the query's own
        row = squares.argmin(dim=1)
        distances = (queries - rows[row]).norm(dim=1)  # exact: that to a copy is 0
        nearer = distances < best
        best = torch.where(nearer, distances, best)
        indices = torch.where(nearer, row + seen, indices)
        seen += len(rows)
    return Nearest(best, indices)
