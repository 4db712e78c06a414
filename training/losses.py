"""Losses: logits in, a scalar out. No networks, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy, softplus


def discriminator_loss(real: Tensor, fake: Tensor, mismatched: Tensor | None) -> Tensor:
    """Binary cross-entropy of the discriminator, from logits ``[N]``.

    ``mismatched`` are the logits of real images under wrong labels; with the generated images they
    share the weight of one (Reed et al. 2016, https://arxiv.org/abs/1605.05396, algorithm 1).
    """
    loss_real = softplus(-real).mean()  # -log(sigmoid(real))
    loss_fake = softplus(fake).mean()  # -log(1 - sigmoid(fake))
    if mismatched is None:
        return loss_real + loss_fake
    loss_mismatched = softplus(mismatched).mean()  # -log(1 - sigmoid(mismatched))
    return loss_real + (loss_fake + loss_mismatched) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """The non-saturating loss (Goodfellow et al. 2014, section 3), from logits ``[N]``."""
    return softplus(-fake).mean()  # -log(sigmoid(fake))


def label_loss(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cross-entropy of the labels read off images, the sum over the attributes.

    ``logits [N, C]`` hold those of all attributes side by side, ``sizes`` the number of values of
    each, ``labels [N, A]`` the indices of the right ones (Odena et al. 2017, equation 3).
    """
    heads = logits.split(list(sizes), dim=1)
    losses = [cross_entropy(head, labels[:, a]) for a, head in enumerate(heads)]
    return sum(losses[1:], start=losses[0])
