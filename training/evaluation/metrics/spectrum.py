"""Power of the finest details of images, which upsampling in a generator gets wrong first."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FINE, HATCH = 3 / 8, 7 / 16
"""Lowest frequencies of the two bands, in cycles per pixel; Nyquist's is 1/2."""


def powers(images: Tensor) -> tuple[float, float]:
    """Mean power of uint8 ``images [N, H, W, C]`` in two bands of their spectrum.

    Fine: details below three pixels along either axis. Hatch: patterns that change from each pixel
    to the next along both axes, as a checkerboard does.
    """
    grey = images.float().mean(dim=3) / 255
    grey = grey - grey.mean(dim=(1, 2), keepdim=True)
    height, width = grey.shape[1:]
    # Without a window, the edges of an image count as details.
    rows, columns = (torch.hann_window(n, device=images.device) for n in (height, width))
    spectrum = torch.fft.rfft2(grey * rows[:, None] * columns).abs().square().mean(dim=0)
    y = torch.fft.fftfreq(height, device=images.device).abs()[:, None]
    x = torch.fft.rfftfreq(width, device=images.device)[None]
    fine = spectrum[torch.maximum(y, x) >= FINE].mean()
    return float(fine), float(spectrum[torch.minimum(y, x) >= HATCH].mean())


def decibels(power: float, real: float) -> float:
    """``power`` relative to that of real images: 0 is best, below it is too smooth."""
    return 10 * math.log10(max(power, TINY) / max(real, TINY))


TINY = 1e-12
"""Power below that of rounding to 8 bits."""
