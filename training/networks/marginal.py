"""Unconditional generator made of a conditional one, which draws the labels itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from service.core.manifest import Attribute


class Marginal(nn.Module):
    """``generator`` with one additional latent per attribute, which selects the attribute's value.

    The standard normal distribution is cut at the quantiles of the cumulative frequencies, so each
    value has its frequency. Attributes are independent, as in the service, which draws the
    attributes that a request leaves open. Between two latents a label changes at once, at a cut.
    """

    condition_size = 0

    def __init__(
        self, generator: nn.Module, latent_size: int, attributes: Sequence[Attribute]
    ) -> None:
        """``latent_size`` is the latent size of ``generator``, which takes (latent, condition)."""
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
        """``latent [N, Z + A]`` to images. ``condition`` is ``[N, 0]`` or None, and ignored."""
        inner, selectors = latent[:, : self.inner_size], latent[:, self.inner_size :]
        rows = [
            _one_hot(selectors[:, a : a + 1] > self.get_buffer(f"cuts{a}"))
            for a in range(self.attributes)
        ]
        return self.generator(inner, torch.cat(rows, dim=1))


def _one_hot(above: Tensor) -> Tensor:
    """Convert "latent is above cut k", ``[N, K - 1]``, to one-hot rows ``[N, K]``."""
    steps = above.float()
    end = torch.ones_like(steps[:, :1])
    return torch.cat([end, steps], dim=1) - torch.cat([steps, 0 * end], dim=1)
