"""LeCam regularisation: keeps the discriminator's outputs near those of recent batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from training.core import distributed

DECAY = 0.99
"""Of the moving averages, for each step, as in the authors' code."""


class LeCam(nn.Module):
    """Moving averages of the logits, and the penalty on the distance from them.

    Tseng et al. 2021 (https://arxiv.org/abs/2104.03310), equation 4: real logits are drawn towards
    the average of the generated ones, and generated ones towards that of the real ones. That bounds
    what a discriminator that knows its images by heart can claim.
    """

    real: Tensor
    fake: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Penalty of logits ``[N]``; moves the averages first. Collective."""
        with torch.no_grad():
            for average, logits in ((self.real, real), (self.fake, fake)):
                average.lerp_(distributed.mean(logits.mean()), 1 - DECAY)
        above, below = relu(real - self.fake), relu(self.real - fake)
        return above.square().mean() + below.square().mean()
