"""Conversion between uint8 pixels and the networks' range [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def to_networks(images: Tensor) -> Tensor:
    """Convert uint8 ``[N, H, W, C]``, 0 to 255, to float32 ``[N, C, H, W]`` in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Convert float ``[N, C, H, W]`` in [-1, 1] to uint8 ``[N, H, W, C]``, rounded half to even."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
