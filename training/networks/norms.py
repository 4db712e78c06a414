"""Batch norm: plain, conditional, and for the discriminator.

If a batch is split over several processes, its statistics are those of the whole batch, so that a
run does not depend on the number of processes (``training.core.distributed``).
"""

from __future__ import annotations

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


def synchronise_batch_norm(network: nn.Module) -> None:
    """Average the statistics of all batch norms of ``network`` over the processes."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.synchronised = True
