"""Gradient penalties on the discriminator.

They differentiate a gradient, so they are computed in float32 and never through a compiled network
(https://github.com/pytorch/pytorch/issues/91469). The gradient of an image's logit must not depend
on the rest of its batch, so the discriminator must not have batch norm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Judge = Callable[[Tensor], Tensor]
"""Function of images ``[N, channels, H, W]`` to logits ``[N]``, for fixed conditions."""

GP_WEIGHT = 10
"""Weight of the WGAN-GP penalty (Gulrajani et al. 2017, algorithm 1)."""


def zero_centred(judge: Judge, images: Tensor) -> Tensor:
    """Half the mean squared norm of the logits' gradient at ``images [N, channels, H, W]``.

    R1 on real images, R2 on generated ones (Mescheder et al. 2018,
    https://arxiv.org/abs/1801.04406, equations 9 and 10).
    """
    return _gradients(judge, images).square().sum(dim=1).mean() / 2


def one_centred(judge: Judge, real: Tensor, fake: Tensor, uniform: Tensor) -> Tensor:
    """WGAN-GP penalty: mean squared distance of the gradient's norm from 1, times ``GP_WEIGHT``.

    Evaluated between ``real`` (0) and ``fake`` (1) at ``uniform [N]`` in [0, 1)
    (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, equation 3).
    """
    between = torch.lerp(real, fake, uniform[:, None, None, None])
    return GP_WEIGHT * (_gradients(judge, between).norm(dim=1) - 1).square().mean()


def _gradients(judge: Judge, images: Tensor) -> Tensor:
    """Gradient of each image's logit, ``[N, channels * H * W]``."""
    images = images.detach().requires_grad_(True)
    (gradients,) = torch.autograd.grad(judge(images).sum(), images, create_graph=True)
    return gradients.flatten(1)
