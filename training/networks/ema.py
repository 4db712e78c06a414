"""Exponential moving average of the generator; samples and exports come from it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from training.networks.networks import Generator

RAMP_UP = 0.05
"""Largest half-life as a share of the images shown, so that early weights fade quickly."""


def copy_of(generator: Generator) -> Generator:
    """Return a copy of ``generator`` in inference mode, without gradients."""
    return copy.deepcopy(generator).eval().requires_grad_(False)


@torch.no_grad()
def update(ema: Generator, generator: Generator, beta: float) -> None:
    """Move the average towards ``generator``, and keep a share of ``beta`` of it.

    Batch-norm statistics are not averaged, since averaged ones fit no network:
    ``recalibrate_batch_norm`` measures them.
    """
    torch._foreach_lerp_(list(ema.parameters()), list(generator.parameters()), 1 - beta)


def exponential_beta(shown: int, batch: int, halflife: float) -> float:
    """Share that an average with this half-life keeps in a step of ``batch`` images.

    ``shown`` and ``halflife`` are in images.
    """
    return 0.5 ** (batch / max(min(halflife, shown * RAMP_UP), 1e-8))


def power_beta(shown: int, batch: int, sigma: float) -> float:
    """Share that a power-function average keeps in a step of ``batch`` images.

    Its profile is always the same in relation to the images shown so far, and ``sigma`` is its
    deviation (Karras et al. 2023, https://arxiv.org/abs/2312.02696, equations 4 and 126).
    """
    polynomial = [1, 7, 16 - sigma**-2, 12 - sigma**-2]
    exponent = np.roots(polynomial).real.max()
    return float((1 - batch / shown) ** (exponent + 1))


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
