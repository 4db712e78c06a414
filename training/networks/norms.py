"""Batch norm: plain, conditional, and for the discriminator.

If a batch is split over several processes, its statistics are those of the whole batch, so that a
run does not depend on the number of processes (``training.core.distributed``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.core import distributed


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over all processes (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167)."""

    synchronised = False
    """True if statistics are averaged over the processes: in training, not in sampling."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """``[N, F, h, w]`` to the same shape; ``condition`` is ignored."""
        uses_batch_statistics = self.training or not self.track_running_stats
        if not (self.synchronised and uses_batch_statistics):
            return super().forward(x)
        mean = distributed.mean(x.float().mean((0, 2, 3)))
        centred = x.float() - mean[:, None, None]
        variance = distributed.mean(centred.square().mean((0, 2, 3)))
        normal = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            normal = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return normal.to(x.dtype)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear functions of the condition.

    Dumoulin et al. 2017 (https://arxiv.org/abs/1610.07629), section 2.2. A linear map of
    concatenated one-hot vectors is the sum of one embedding per attribute; without attributes it is
    plain batch norm.
    """

    def __init__(self, channels: int, condition_size: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, affine=False)
        self.gain = nn.Linear(condition_size, channels, bias=False)
        self.bias = nn.Linear(condition_size, channels)
        nn.init.normal_(self.gain.weight, 0, 0.02)
        nn.init.normal_(self.bias.weight, 0, 0.02)
        nn.init.zeros_(self.bias.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``x [N, F, h, w]`` and ``condition [N, C]`` to ``[N, F, h, w]``."""
        return self.modulate(self.norm(x), condition)

    def modulate(self, normal: Tensor, condition: Tensor) -> Tensor:
        """Apply gain and bias to ``normal [N, F, h, w]``, which is normalised already."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return normal * gain[:, :, None, None] + bias[:, :, None, None]


def discriminator_norm(channels: int) -> BatchNorm:
    """Batch norm without running statistics, for a network that is used in training only.

    Its only state is its parameters, so the generator's step leaves the discriminator unchanged.
    """
    return BatchNorm(channels, track_running_stats=False)


class Chain(nn.Module):
    """Lipschitz continuous normalisation of a discriminator's feature maps, by a varying share.

    Ni and Koniusz 2024 (https://arxiv.org/abs/2404.00521), the batch variant: a share of the maps,
    drawn at random for each image and channel, is divided by the channel's root mean square over
    the batch and multiplied by the smallest of all channels. ``penalty`` draws the means, which are
    not subtracted, towards 0. The share follows the discriminator: it grows while more than
    ``TARGET`` of the real logits are positive, and at a share of 0 the layer changes nothing.

    Random numbers come from PyTorch's global state, which the caller seeds.
    """

    share: Tensor
    lead: Tensor

    WEIGHT, TARGET, DECAY = 20, 0.5, 0.9
    """As in the authors' code, like ``STEP`` at half of it, for runs half as long."""
    STEP = 0.002

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("lead", torch.zeros(()))
        self.penalty: Tensor | float = 0.0
        """Of the passes in training mode since ``take_penalty``."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, F, h, w]`` to the same shape."""
        maps = x.float()
        power = distributed.mean(maps.square().mean((0, 2, 3)))
        if self.training:
            means = distributed.mean(maps.mean((0, 2, 3)))
            self.penalty = self.penalty + self.WEIGHT * self.share * means.square().sum()
        root = (power + 1e-5).sqrt()
        scale = (root.min().detach() / root)[:, None, None]
        drawn = torch.rand(*x.shape[:2], 1, 1, device=x.device) < self.share
        return torch.where(drawn, scale, 1.0).to(x.dtype) * x

    def take_penalty(self) -> Tensor:
        """Return the penalty and start it anew."""
        penalty, self.penalty = self.penalty, 0.0
        return torch.as_tensor(penalty, device=self.share.device)

    @torch.no_grad()
    def follow(self, real_logits: Tensor) -> None:
        """Move the share after a step with these logits of real images. Collective."""
        self.lead.lerp_(distributed.mean(real_logits.sign().mean()), 1 - self.DECAY)
        self.share.add_(self.STEP * (self.lead - self.TARGET).sign()).clamp_(0, 1)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Average the statistics of all batch norms of ``network`` over the processes."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.synchronised = True
