"""The parts of the inception score, apart: how sure of an image, how varied over images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Entropies(NamedTuple):
    """In nats; the inception score is ``exp(marginal - conditional)`` (Salimans et al. 2016,
    https://arxiv.org/abs/1606.03498, section 4)."""

    conditional: float
    """H(y|x): 0 where every image is read without a doubt."""
    marginal: float
    """H(y): the log of the number of values where each is read equally often."""


def entropies(probabilities: Tensor) -> Entropies:
    """Of a classifier's ``probabilities [N, K]`` of N images, each row of which sums to 1."""
    return Entropies(
        conditional=float(_entropy(probabilities).mean()),
        marginal=float(_entropy(probabilities.mean(dim=0))),
    )


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=-1)
