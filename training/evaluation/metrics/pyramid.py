"""Sliced Wasserstein distance between patches of a Laplacian pyramid: texture at each scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

PATCH = 7
"""Side of a patch in pixels."""
PATCHES = 32
"""Patches of each image and level."""
DIRECTIONS = 128
SMALLEST = 14
"""Shortest side of a level: two patches."""
SCALE = 1000

Projections = dict[int, npt.NDArray[np.float32]]
"""Sorted projections ``[DIRECTIONS, M]`` of each level, by its height in pixels."""


def pyramid(images: Tensor) -> list[Tensor]:
    """Laplacian pyramid of ``images [N, C, H, W]``: bands, largest first, then what is left.

    Each level has the means of 2x2 pixels of the one before, and a band is what they leave of it,
    so a hatch, which differs within these, is in the first band alone.
    The sides are halved while they are even and stay at least ``SMALLEST``.
    """
    bands = []
    while min(images.shape[2:]) >= 2 * SMALLEST and not any(s % 2 for s in images.shape[2:]):
        smaller = avg_pool2d(images, 2)
        bands.append(images - interpolate(smaller, scale_factor=2))
        images = smaller
    return [*bands, images]


def project(images: Tensor) -> Projections:
    """Sorted projections of random patches of uint8 ``images [N, H, W, C]``, for each level."""
    levels = pyramid(images.permute(0, 3, 1, 2).float() / 255)
    return {level.shape[2]: _sorted_projections(_patches(level)) for level in levels}


def pyramid_distances(a: Projections, b: Projections) -> dict[int, float]:
    """Distance at each level, by its height in pixels, between two sets of as many images.

    Karras et al. 2018 (https://arxiv.org/abs/1710.10196), section 5: random patches of 7x7 pixels,
    scaled to mean 0 and deviation 1 for each channel and set, are projected onto random directions;
    the distance is the mean over the directions of the Wasserstein distance, times 1000. At least
    0, lower is better. It falls with N, and does not show differences of contrast.
    """
    return {side: SCALE * float(np.abs(a[side] - b[side]).mean()) for side in a}


def _patches(level: Tensor) -> Tensor:
    """Random patches of ``level [N, C, h, w]``, flat: ``[N * PATCHES, C * PATCH**2]``."""
    count, channels = level.shape[:2]
    windows = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    random = torch.Generator().manual_seed(count)
    uniform = torch.rand(2, count * PATCHES, generator=random).to(level.device)
    y, x = ((uniform[a] * windows.shape[2 + a]).long() for a in range(2))
    rows = torch.arange(count, device=level.device).repeat_interleave(PATCHES)
    patches = windows[rows, :, y, x]
    deviation, mean = torch.std_mean(patches, dim=(0, 2, 3), keepdim=True)
    return ((patches - mean) / deviation.clamp(min=1e-8)).reshape(-1, channels * PATCH**2)


def _sorted_projections(patches: Tensor) -> npt.NDArray[np.float32]:
    """``patches [M, D]`` along each direction, sorted: ``[DIRECTIONS, M]``."""
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(patches.shape[1], DIRECTIONS, generator=random).to(patches.device)
    projected = (directions / directions.norm(dim=0)).T @ patches.T
    # NumPy sorts ten times as fast as PyTorch on a CPU.
    return np.sort(projected.cpu().numpy(), axis=1)
