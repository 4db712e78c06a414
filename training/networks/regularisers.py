"""Gradient penalties on the discriminator.

They differentiate a gradient, so they are computed in float32 and never through a compiled network
(https://github.com/pytorch/pytorch/issues/91469). They judge each image apart from its batch, so
the discriminator may have no batch norm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Judge = Callable[[Tensor], Tensor]
"""Images ``[N, channels, H, W]`` to logits ``[N]``, under conditions that are given."""

GP_WEIGHT = 10
"""Gulrajani et al. 2017, algorithm 1."""


def zero_centred(judge: Judge, images: Tensor) -> Tensor:
    """Half the mean squared norm of the logits' gradient at ``images [N, channels, H, W]``.

    On real images it is R1, on generated ones R2 (Mescheder et al. 2018,
    https://arxiv.org/abs/1801.04406, equations 9 and 10).
    """
    return _gradients(judge, images).square().sum(dim=1).mean() / 2


def one_centred(judge: Judge, real: Tensor, fake: Tensor, uniform: Tensor) -> Tensor:
    """The penalty of WGAN-GP: the gradient's norm is drawn to 1 between real and generated images.

    ``uniform [N]`` in [0, 1) says where between them (Gulrajani et al. 2017,
    https://arxiv.org/abs/1704.00028, equation 3).
    """
    between = torch.lerp(real, fake, uniform[:, None, None, None])
    return GP_WEIGHT * (_gradients(judge, between).norm(dim=1) - 1).square().mean()


def _gradients(judge: Judge, images: Tensor) -> Tensor:
    """``[N, channels * H * W]``: that of each image's logit."""
    images = images.detach().requires_grad_(True)
    (gradients,) = torch.autograd.grad(judge(images).sum(), images, create_graph=True)
    return gradients.flatten(1)
