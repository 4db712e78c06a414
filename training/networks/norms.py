"""Batch norm in the three ways that the networks need it.

Where a batch is spread over several processes, its statistics are those of the whole batch, so
that a run does not depend on how many there are (``training.core.distributed``).
"""

from __future__ import annotations

from torch import Tensor, nn

from training.core import distributed


class BatchNorm(nn.BatchNorm2d):
    """Ioffe and Szegedy 2015 (https://arxiv.org/abs/1502.03167)."""

    spread = False
    """Whether batches are spread over the processes of a group: training, not sampling."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """``[N, F, h, w]`` to the same; ``condition`` is for ``ConditionalBatchNorm``."""
        of_the_batch = self.training or not self.track_running_stats
        if not (self.spread and of_the_batch):
            return super().forward(x)
        mean = distributed.mean(x.float().mean((0, 2, 3)))
        centred = x.float() - mean[:, None, None]
        variance = distributed.mean(centred.square().mean((0, 2, 3)))
        normal = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            normal = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return normal.to(x.dtype)


class ConditionalBatchNorm(nn.Module):
    """A batch norm whose gain and bias are read off the condition.

    Dumoulin et al. 2017 (https://arxiv.org/abs/1610.07629), section 2.2. A linear map of one-hot
    vectors side by side is the sum of one embedding for each attribute; no attribute at all gives
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
        """The part after normalisation."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return normal * gain[:, :, None, None] + bias[:, :, None, None]


def discriminator_norm(channels: int) -> BatchNorm:
    """Batch norm for a network that only ever sees whole batches in training.

    Without running statistics it has no state beside its parameters, so the generator's step leaves
    the discriminator untouched.
    """
    return BatchNorm(channels, track_running_stats=False)


def spread_over_processes(network: nn.Module) -> None:
    """Have all of a network's batch norms share their statistics among the processes."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.spread = True
