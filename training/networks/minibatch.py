"""Layers that let a discriminator see several images at once.

One that judges each image alone cannot object when a generator draws the same good image again and
again. These layers tell it how alike the images beside it are. "Beside it" is a group: a run of
``group`` consecutive rows, so that what an image is told depends neither on the size of its batch
nor on the images of other groups. Real and generated images must come in batches of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """How close each row is to the others of its group, as ``kernels`` more features.

    Salimans et al. 2016 (https://arxiv.org/abs/1606.03498, section 3.2): a learnt tensor T
    ``[features, kernels, dims]`` takes each row x_i to a matrix M_i ``[kernels, dims]``, and

        o_b(x_i) = sum over j != i of exp(-||M_ib - M_jb||_1),

    here over the others of the group. o lies in [0, group - 1]: at its top, all rows are the same.
    """

    def __init__(self, features: int, kernels: int, dims: int, group: int) -> None:
        """Raises ``ValueError`` for a group of less than 2, in which nobody has others."""
        super().__init__()
        _check_group(group)
        self.group = group
        # M starts with the scale of the features, so that few distances are so far or so near
        # that exp(-d) has no slope.
        self.T = nn.Parameter(torch.randn(features, kernels, dims) / features**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """``features [N, A]`` to ``[N, A + kernels]``, o after the features.

        Raises ``ValueError`` where N is not a multiple of the group.
        """
        groups = _groups(features, self.group)
        matrices = (features @ self.T.flatten(1)).view(groups, self.group, *self.T.shape[1:])
        # [groups, i, j, kernels]
        distances = (matrices[:, :, None] - matrices[:, None]).abs().sum(dim=-1)
        others = 1 - torch.eye(self.group, dtype=distances.dtype, device=distances.device)
        closeness = (torch.exp(-distances) * others[:, :, None]).sum(dim=2)
        return torch.cat([features, closeness.flatten(0, 1)], dim=1)


class MinibatchStddev(nn.Module):
    """How much the images of a group differ, as one more feature map.

    Karras et al. 2018 (https://arxiv.org/abs/1710.10196, section 3): the standard deviation of each
    feature at each pixel over the group, and their mean, one number, repeated over the map.
    Nothing in it is learnt.
    """

    def __init__(self, group: int) -> None:
        """Raises ``ValueError`` for a group of less than 2, in which nothing can differ."""
        super().__init__()
        _check_group(group)
        self.group = group

    def forward(self, maps: Tensor) -> Tensor:
        """``maps [N, C, H, W]`` to ``[N, C + 1, H, W]``, the new map last.

        Raises ``ValueError`` where N is not a multiple of the group.
        """
        groups = _groups(maps, self.group)
        # In float32, as 1e-8 is nothing in half precision. It keeps the root's slope finite where
        # all images of a group are the same.
        variance = maps.float().unflatten(0, (groups, self.group)).var(dim=1, correction=0)
        stddev = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3)).to(maps.dtype)
        rows = stddev.repeat_interleave(self.group)[:, None, None, None]
        return torch.cat([maps, rows.expand(-1, 1, *maps.shape[2:])], dim=1)


def _check_group(group: int) -> None:
    if group < 2:
        raise ValueError(f"a group of {group} has nothing to compare; use 2 or more")


def _groups(batch: Tensor, group: int) -> int:
    if len(batch) % group:
        raise ValueError(f"a batch of {len(batch)} cannot be divided into groups of {group}")
    return len(batch) // group
