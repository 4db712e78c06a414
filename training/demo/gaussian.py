"""A GAN learns N(4, 0.5), with and without minibatch discrimination.

The example of J. Glover's "An introduction to generative adversarial networks" (AYLIEN, 2016). A
discriminator that classifies each number alone has one number that it rates highest. A generator
that learns faster than the discriminator moves all samples there (mode collapse): their mean is
right and their deviation far too small. With minibatch discrimination (Salimans et al. 2016,
https://arxiv.org/abs/1606.03498, section 3.2) the discriminator detects that samples are too
similar. Everything else is equal in both variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.core.adam import Adam
from training.core.device import CPU
from training.core.randomness import stream
from training.networks.minibatch import MinibatchDiscrimination

MEAN, STDDEV = 4.0, 0.5
AXIS = np.linspace(0, 8, 321)
"""Numbers at which the discriminator is evaluated."""

SEED, STEPS = 1, 2000
STATES = 200
"""Upper limit of the states of a run, without the first."""

# Settings with which nearly every seed learns the distribution with minibatch discrimination, and
# collapses without: docs/demo.md has the counts.
BATCH = 64
GROUP = 16
KERNELS, DIMS = 4, 2
GENERATOR_WIDTH, DISCRIMINATOR_WIDTH = 4, 16
GENERATOR_LR, DISCRIMINATOR_LR = 2e-3, 1e-3
LR_HOLD = 0.5
BETAS = (0.0, 0.999)

LATENT_RANGE = 8.0
SAMPLES = 2000


@dataclass(frozen=True)
class State:
    """Output of the networks after ``step`` steps."""

    step: int
    generated: npt.NDArray[np.float32]
    """``[SAMPLES]``, samples from latents that are spaced evenly over their range."""
    verdict: npt.NDArray[np.float32]
    """The discriminator's probability, in [0, 1], that each number of ``AXIS`` is real, in a group
    with generated ones. The generator follows its slope."""

    @property
    def mean(self) -> float:
        return float(self.generated.mean())

    @property
    def stddev(self) -> float:
        return float(self.generated.std())


def train(*, minibatch: bool, seed: int = SEED, steps: int = STEPS) -> Iterator[State]:
    """Train for ``steps`` (at least 1), and yield the states at ``shown_steps`` on the way."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator, discriminator = _generator(), _discriminator(minibatch)
    g_adam, d_adam = _adam(generator), _adam(discriminator)
    data, latent = stream(seed, "data", 0, CPU), stream(seed, "latent", 0, CPU)
    shown = set(shown_steps(steps))
    yield _state(0, generator, discriminator)
    for step in range(1, steps + 1):
        # Constant, then linearly down to 0, so that both networks converge.
        rate = min(1.0, (steps - step + 1) / (steps * (1 - LR_HOLD)))
        d_adam.param_groups[0]["lr"] = rate * DISCRIMINATOR_LR
        g_adam.param_groups[0]["lr"] = rate * GENERATOR_LR

        real = MEAN + STDDEV * torch.randn(BATCH, 1, generator=data)
        with torch.no_grad():
            fake = generator(_latents(latent))
        d_real, d_fake = discriminator(torch.cat([real, fake])).chunk(
            2
        )  # groups are all real or all fake
        d_loss = softplus(-d_real).mean()  # -log(sigmoid(real))
        d_loss = d_loss + softplus(d_fake).mean()  # -log(1 - sigmoid(fake))
        _descend(d_adam, d_loss)

        # Non-saturating loss (Goodfellow et al. 2014, section 3).
        g_loss = softplus(-discriminator(generator(_latents(latent)))).mean()  # -log(sigmoid(fake))
        _descend(g_adam, g_loss)
        if step in shown:
            yield _state(step, generator, discriminator)


def shown_steps(steps: int) -> list[int]:
    """Steps whose states are shown, from 0 to ``steps``; denser at first, where more changes."""
    return sorted({round(steps * (k / STATES) ** 2) for k in range(STATES + 1)})


def _generator() -> nn.Module:
    """Network from latents ``[N, 1]`` to numbers ``[N, 1]``."""
    return nn.Sequential(
        nn.Linear(1, GENERATOR_WIDTH), nn.Softplus(), nn.Linear(GENERATOR_WIDTH, 1)
    )


def _discriminator(minibatch: bool) -> nn.Module:
    """Network from numbers ``[N, 1]`` to logits ``[N, 1]``.

    With ``minibatch``, N must be a multiple of ``GROUP``.
    """
    width = DISCRIMINATOR_WIDTH
    comparing = [MinibatchDiscrimination(width, KERNELS, DIMS, GROUP)] if minibatch else []
    return nn.Sequential(
        nn.Linear(1, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        *comparing,
        nn.Linear(width + len(comparing) * KERNELS, width),
        nn.Tanh(),
        nn.Linear(width, 1),
    )


def _adam(network: nn.Module) -> torch.optim.Optimizer:
    return Adam(network.parameters(), betas=BETAS, fused=True)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step for the optimizer's network only; the other gets no gradient."""
    parameters = optimizer.param_groups[0]["params"]
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def _latents(rng: torch.Generator) -> Tensor:
    """Latents ``[BATCH, 1]``, one from each of ``BATCH`` equal parts of the range, in random order.

    Random order, because a group of neighbours would be similar with any generator.
    """
    pieces = torch.randperm(BATCH, generator=rng) + torch.rand(BATCH, generator=rng)
    return (LATENT_RANGE * (2 * pieces / BATCH - 1))[:, None]


@torch.no_grad()
def _state(step: int, generator: nn.Module, discriminator: nn.Module) -> State:
    evenly = LATENT_RANGE * (2 * (torch.arange(SAMPLES) + 0.5) / SAMPLES - 1)
    generated = generator(evenly[:, None])[:, 0]
    beside = generated[SAMPLES // (2 * GROUP) :: SAMPLES // GROUP][: GROUP - 1]
    axis = torch.from_numpy(AXIS).float()[:, None]
    groups = torch.cat([axis, beside.expand(len(axis), -1)], dim=1)  # each number, and the others
    logits = discriminator(groups.reshape(-1, 1)).view(groups.shape)[:, 0]
    return State(step, generated.numpy(), torch.sigmoid(logits).numpy())
