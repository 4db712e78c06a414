"""Nearest neighbours of a few rows among many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Nearest(NamedTuple):
    """Nearest row of each of N queries."""

    distances: Tensor
    """Euclidean, at least 0, ``[N]``."""
    indices: Tensor
    """int64 ``[N]``: index of the row, counted over all parts."""


def nearest(queries: Tensor, parts: Iterable[Tensor]) -> Nearest:
    """Find the nearest row of all ``parts [M, D]`` for each of ``queries [N, D]``.

    One part is in memory at a time.
    """
    best = torch.full((len(queries),), torch.inf, device=queries.device)
    indices = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    seen = 0
    for rows in parts:
        # Products are fast and wrong in the last digits only, which is enough to find the nearest.
        squares = rows.square().sum(dim=1) - 2 * queries @ rows.T  # without the query's own square
        row = squares.argmin(dim=1)
        distances = (queries - rows[row]).norm(dim=1)  # exact: 0 for a copy
        nearer = distances < best
        best = torch.where(nearer, distances, best)
        indices = torch.where(nearer, row + seen, indices)
        seen += len(rows)
    return Nearest(best, indices)
