"""Probability of augmentation that follows how well the discriminator knows the training images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.core import distributed

IMAGES = 100_000
"""Images over which the probability can rise from 0 to 1: a tenth of a run, as in the paper."""


class AdaptiveProbability(nn.Module):
    """Probability that grows while the discriminator's real logits are too often positive.

    Karras et al. 2020 (https://arxiv.org/abs/2006.06676), section 3, with the heuristic r_t, the
    mean sign of the logits of training images.
    """

    value: Tensor

    def __init__(self, target: float, largest: float) -> None:
        super().__init__()
        self.target, self.largest = target, largest
        self.register_buffer("value", torch.zeros(()))

    @torch.no_grad()
    def follow(self, real_logits: Tensor, batch: int) -> None:
        """Move after a step of ``batch`` images with these logits of real ones. Collective."""
        excess = distributed.mean(real_logits.sign().mean()) - self.target
        self.value.add_(excess.sign() * batch / IMAGES).clamp_(0, self.largest)
