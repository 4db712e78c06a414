"""The two entropies of the inception score: certainty of an image, variety over images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Entropies(NamedTuple):
    """Entropies in nats; the inception score is ``exp(marginal - conditional)`` (Salimans et al.
    2016, https://arxiv.org/abs/1606.03498, section 4)."""

    conditional: float
    """H(y|x), from 0 (every image is read with certainty) to log K; lower is better."""
    marginal: float
    """H(y), from 0 to log K (all K values are read equally often); higher means more varied."""


def entropies(probabilities: Tensor) -> Entropies:
    """Entropies of a classifier's ``probabilities [N, K]`` for N images; each row sums to 1."""
    return Entropies(
        conditional=float(_entropy(probabilities).mean()),
        marginal=float(_entropy(probabilities.mean(dim=0))),
    )


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=-1)
