"""Upsampling and bands of images by fixed filters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

BAND_GAIN = 4
"""Brings the finest band of photographs to about the deviation of the image."""
KERNELS = {
    "nearest": (3, (1.0, 1.0)),
    "blurred": (4, (1 / 4, 1 / 2, 1 / 4)),
    "soft": (4, (1 / 6, 2 / 3, 1 / 6)),
}
"""Side of the learnt kernel, and taps of the filter along each axis."""


class SmoothUp(nn.Module):
    """Transposed convolution of stride 2 whose kernel is a learnt one convolved with a filter.

    ``nearest`` is nearest-neighbour upsampling and a 3x3 convolution (Odena et al. 2016,
    https://distill.pub/2016/deconv-checkerboard); ``blurred`` is a 4x4 transposed convolution, and
    the filter [1, 2, 1] over its output (after Karras et al. 2020,
    https://arxiv.org/abs/1912.04958); ``soft`` has [1, 4, 1], which keeps a third of the finest
    waves. Each is one transposed convolution when it is exported.
    """

    filter: Tensor

    def __init__(self, kind: str, inputs: int, outputs: int) -> None:
        super().__init__()
        side, taps = KERNELS[kind]
        self.padding = (side + len(taps) - 3) // 2
        self.weight = nn.Parameter(torch.zeros(inputs, outputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        row = torch.tensor(taps)
        self.register_buffer("filter", row.outer(row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return conv_transpose2d(x, self._kernel(), self.bias, stride=2, padding=self.padding)

    def folded(self) -> nn.ConvTranspose2d:
        """Return the same function with its filter in its weights."""
        kernel = self._kernel()
        inputs, outputs, side, _ = kernel.shape
        layer = nn.ConvTranspose2d(inputs, outputs, side, stride=2, padding=self.padding)
        with torch.no_grad():
            layer.weight.copy_(kernel)
            layer.bias.copy_(self.bias)  # type: ignore[union-attr]
        return layer

    def _kernel(self) -> Tensor:
        flat = self.weight.flatten(0, 1)[:, None]
        # The filter is symmetric, so correlation is convolution.
        return conv2d(flat, self.filter, padding=len(self.filter[0, 0]) - 1)[:, 0].unflatten(
            0, self.weight.shape[:2]
        )


def with_band(images: Tensor) -> Tensor:
    """``images [N, C, H, W]`` and their finest details as further channels: ``[N, 2C, H, W]``.

    Details are what the filter [1, 2, 1] takes away along both axes, the finest band of a Laplacian
    pyramid.
    """
    blurred = images
    for axis in (2, 3):
        size = images.shape[axis]
        # Sums of slices keep float32, in which the band is exact, under autocast.
        edges = (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0)
        padded = pad(blurred, edges, mode="reflect")
        before, middle, after = (padded.narrow(axis, shift, size) for shift in range(3))
        blurred = before / 4 + middle / 2 + after / 4
    return torch.cat([images, BAND_GAIN * (images - blurred)], dim=1)
