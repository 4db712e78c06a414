"""Exponential moving average of the generator; samples and exports come from it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.networks.networks import Generator

RAMP_UP = 0.05
"""Largest half-life as a share of the images shown, so that early weights fade quickly."""


def copy_of(generator: Generator) -> Generator:
    """Return a copy of ``generator`` in inference mode, without gradients."""
    return copy.deepcopy(generator).eval().requires_grad_(False)


@torch.no_grad()
def update(
    ema: Generator, generator: Generator, *, shown: int, batch: int, halflife: float
) -> None:
    """Move the average one step of ``batch`` images towards ``generator``.

    ``shown`` and ``halflife`` are in images. Batch-norm statistics are not averaged, since averaged
    ones fit no network: ``recalibrate_batch_norm`` measures them.
    """
    beta = 0.5 ** (batch / max(min(halflife, shown * RAMP_UP), 1e-8))
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), 1 - beta)


@torch.no_grad()
def recalibrate_batch_norm(ema: Generator, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the batch-norm statistics to the means over ``batches`` of (latent, condition).

    Leaves ``ema`` in inference mode, in which an image does not depend on its batch.
    """
    norms = [module for module in ema.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None: unweighted mean over all batches
    ema.train()
    for latent, condition in batches:
        ema(latent, condition)
    ema.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
