"""Adversarial losses: logits ``[N]`` in, a scalar out. No networks, no I/O.

The relativistic loss compares row i of the real logits with row i of the generated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu, softplus


@dataclass(frozen=True)
class Loss:
    """Functions of (real logits, generated logits) that the two networks minimise."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    generator_reads_real: bool = False
    """True if the generator's loss depends on the real logits."""


# Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661), section 3, the non-saturating form.
NON_SATURATING = Loss(
    # -log(sigmoid(real)) - log(1 - sigmoid(fake))
    discriminator=lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
    # -log(sigmoid(fake))
    generator=lambda real, fake: softplus(-fake).mean(),
)

# Lim and Ye 2017 (https://arxiv.org/abs/1705.02894).
HINGE = Loss(
    discriminator=lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
    generator=lambda real, fake: -fake.mean(),
)

# Mao et al. 2017 (https://arxiv.org/abs/1611.04076), equation 9: a = 0, b = c = 1.
LEAST_SQUARES = Loss(
    discriminator=lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
    generator=lambda real, fake: (fake - 1).square().mean() / 2,
)

# Arjovsky et al. 2017 (https://arxiv.org/abs/1701.07875); the gradient penalty is a regulariser.
WASSERSTEIN = Loss(
    discriminator=lambda real, fake: fake.mean() - real.mean(),
    generator=lambda real, fake: -fake.mean(),
)

# Jolicoeur-Martineau 2018 (https://arxiv.org/abs/1807.00734), section 4.1; RpGAN in Huang et al.
# 2024 (https://arxiv.org/abs/2501.05441), which adds R1 and R2.
RELATIVISTIC = Loss(
    discriminator=lambda real, fake: softplus(fake - real).mean(),  # -log(sigmoid(real - fake))
    generator=lambda real, fake: softplus(real - fake).mean(),  # -log(sigmoid(fake - real))
    generator_reads_real=True,
)

LOSSES = {
    "non-saturating": NON_SATURATING,
    "hinge": HINGE,
    "least-squares": LEAST_SQUARES,
    "wgan-gp": WASSERSTEIN,
    "relativistic": RELATIVISTIC,
}


def matching_aware(
    loss: Loss, real: Tensor, fake: Tensor, mismatched: Tensor | None, weight: float
) -> Tensor:
    """Discriminator loss that treats real images under wrong labels as generated ones.

    ``mismatched`` holds their logits; ``weight`` is their share of the fake loss (Reed et al. 2016,
    https://arxiv.org/abs/1605.05396, algorithm 1, has 1/2).
    """
    if mismatched is None:
        return loss.discriminator(real, fake)
    on_fake, on_mismatched = loss.discriminator(real, fake), loss.discriminator(real, mismatched)
    return (1 - weight) * on_fake + weight * on_mismatched


def label_loss(logits: Tensor, labels: Tensor, known: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cross-entropy of the label logits, summed over the attributes.

    ``logits [N, C]`` concatenates the logits of all attributes, ``sizes`` holds the number of
    values of each, ``labels [N, A]`` the indices of the right values. Labels that are not
    ``known [N, A]`` are ignored (Odena et al. 2017, https://arxiv.org/abs/1610.09585, equation 3).
    """
    heads = logits.split(list(sizes), dim=1)
    losses = [cross_entropy(head, labels[:, a], reduction="none") for a, head in enumerate(heads)]
    return (torch.stack(losses, dim=1) * known).mean(dim=0).sum()
