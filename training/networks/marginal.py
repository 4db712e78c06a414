"""A conditional generator as an unconditional one: its labels are drawn, too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from service.core.manifest import Attribute


class Marginal(nn.Module):
    """``generator`` with one more latent for each attribute, which draws its value by frequency.

    A standard normal latent is cut where the cumulative frequencies are reached, so every value has
    its share, and attributes are drawn apart, as the service draws those that a request leaves
    open. On the way between two latents a label changes at once, where a cut is crossed.
    """

    condition_size = 0

    def __init__(
        self, generator: nn.Module, latent_size: int, attributes: Sequence[Attribute]
    ) -> None:
        """``latent_size`` is that of ``generator``, which takes a latent and a condition."""
        super().__init__()
        self.generator = generator
        self.inner_size = latent_size
        self.latent_size = latent_size + len(attributes)
        for a, attribute in enumerate(attributes):
            shares = torch.tensor(attribute.frequencies, dtype=torch.float64).cumsum(0)[:-1]
            cuts = Normal(0.0, 1.0).icdf(shares.clamp(0, 1)).float()
            self.register_buffer(f"cuts{a}", cuts[None])
        self.attributes = len(attributes)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """``latent [N, Z + A]``; there is nothing to ask for, so ``condition`` is ``[N, 0]``."""
        inner, drawn = latent[:, : self.inner_size], latent[:, self.inner_size :]
        rows = [
            _one_hot(drawn[:, a : a + 1] > self.get_buffer(f"cuts{a}"))
            for a in range(self.attributes)
        ]
        return self.generator(inner, torch.cat(rows, dim=1))


def _one_hot(passed: Tensor) -> Tensor:
    """Which cuts were passed, ``[N, K - 1]``, to the one-hot rows ``[N, K]`` of the values."""
    steps = passed.float()
    end = torch.ones_like(steps[:, :1])
    return torch.cat([end, steps], dim=1) - torch.cat([steps, 0 * end], dim=1)
