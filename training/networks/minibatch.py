"""Layers that let a discriminator compare several images.

A discriminator that judges each image alone cannot detect that a generator repeats one good image.
These layers add how similar the images of a group are. A group is ``group`` consecutive rows, so
the features of an image depend neither on the batch size nor on other groups. Real and generated
images must be in separate batches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """Closeness of each row to the others of its group, as ``kernels`` additional features.

    Salimans et al. 2016 (https://arxiv.org/abs/1606.03498, section 3.2): a learnt tensor T
    ``[features, kernels, dims]`` takes each row x_i to a matrix M_i ``[kernels, dims]``, and

        o_b(x_i) = sum over j != i of exp(-||M_ib - M_jb||_1),

    here over the others of the group. o lies in [0, group - 1]; it is group - 1 if all rows are
    equal.
    """

    def __init__(self, features: int, kernels: int, dims: int, group: int) -> None:
        """Raises ``ValueError`` if ``group`` is less than 2."""
        super().__init__()
        _check_group(group)
        self.group = group
        # M starts at the scale of the features, so that exp(-d) rarely saturates.
        self.T = nn.Parameter(torch.randn(features, kernels, dims) / features**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """``features [N, A]`` to ``[N, A + kernels]``: the features, then o.

        Raises ``ValueError`` if N is not a multiple of the group.
        """
        groups = _groups(features, self.group)
        matrices = (features @ self.T.flatten(1)).view(groups, self.group, *self.T.shape[1:])
        # [groups, i, j, kernels]
        distances = (matrices[:, :, None] - matrices[:, None]).abs().sum(dim=-1)
        others = 1 - torch.eye(self.group, dtype=distances.dtype, device=distances.device)
        closeness = (torch.exp(-distances) * others[:, :, None]).sum(dim=2)
        return torch.cat([features, closeness.flatten(0, 1)], dim=1)


class MinibatchStddev(nn.Module):
    """Standard deviation within each group, as one additional feature map.

    Karras et al. 2018 (https://arxiv.org/abs/1710.10196, section 3): the standard deviation of each
    feature at each pixel over the group, averaged to one number, which fills the map. It has no
    parameters.
    """

    def __init__(self, group: int) -> None:
        """Raises ``ValueError`` if ``group`` is less than 2."""
        super().__init__()
        _check_group(group)
        self.group = group

    def forward(self, maps: Tensor) -> Tensor:
        """``maps [N, C, H, W]`` to ``[N, C + 1, H, W]``, the new map last.

        Raises ``ValueError`` if N is not a multiple of the group.
        """
        groups = _groups(maps, self.group)
        # In float32, since 1e-8 vanishes in half precision. It keeps the gradient of the root
        # finite if all images of a group are equal.
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
