"""The DCGAN of Radford, Metz and Chintala 2016 (https://arxiv.org/abs/1511.06434, section 3).

Strided and transposed convolutions of 4x4, no pooling, no fully connected hidden layers on the way
of the image, batch norm except where images enter or leave, ReLU and tanh in the generator,
LeakyReLU in the discriminator. Convolutions start as N(0, 0.02).

A condition is a row of one-hot vectors, one for each attribute, side by side: attributes are never
multiplied into one class per combination. The generator reads it beside the latent; the
discriminator reads it where Reed et al. 2016 (https://arxiv.org/abs/1605.05396, section 4.1) do:
embedded, repeated over its last feature map and mixed in by a 1x1 convolution. Beside that it has a
head that reads the labels off an image, as in Odena et al. 2017 (https://arxiv.org/abs/1610.09585).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST_SIDE = 4
LARGEST_FACTOR = 8
CONDITION_EMBEDDING = 128


def halvings(height: int, width: int) -> int:
    """How often both sides can be halved while they stay whole and at least 4.

    64x64 gives 4 (down to 4x4), 28x28 gives 2 (down to 7x7). Raises ``ValueError`` below 2: such
    an image leaves nothing to convolve.
    """
    count = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= SMALLEST_SIDE:
        height, width, count = height // 2, width // 2, count + 1
    if count < 2:
        raise ValueError(
            f"images of {width << count}x{height << count} cannot be halved twice down to 4 or "
            "more; use 28x28 or sides that are multiples of 16"
        )
    return count


def level_channels(width: int, levels: int) -> list[int]:
    """Channels of the feature maps from the largest to the smallest: w, 2w, 4w, 8w, 8w ..."""
    return [width * min(2**level, LARGEST_FACTOR) for level in range(levels)]


class Generator(nn.Module):
    """Latents and conditions to images.

    ``width`` is the number of channels at half the image's size.
    """

    def __init__(
        self,
        *,
        latent_size: int,
        condition_size: int,
        image_shape: tuple[int, int, int],
        width: int,
    ) -> None:
        super().__init__()
        height, image_width, channels = image_shape
        levels = halvings(height, image_width)
        inputs = latent_size + condition_size
        maps = level_channels(width, levels)[::-1]
        start = (height >> levels, image_width >> levels)
        self.start = nn.Sequential(  # the paper's "project and reshape"
            nn.ConvTranspose2d(inputs, maps[0], start, bias=False),
            nn.BatchNorm2d(maps[0]),
            nn.ReLU(),
        )
        self.ups = nn.Sequential(*map(_up, maps, maps[1:]))
        self.to_image = nn.ConvTranspose2d(maps[-1], channels, 4, stride=2, padding=1)
        self.latent_size = latent_size
        self.condition_size = condition_size
        self.image_shape = image_shape
        self.apply(_initialise)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """``latent [N, Z]`` and ``condition [N, C]`` (C may be 0) to ``[N, channels, H, W]``.

        The image lies in [-1, 1].
        """
        x = torch.cat([latent, condition], dim=1)[:, :, None, None]
        return torch.tanh(self.to_image(self.ups(self.start(x))))


class Discriminator(nn.Module):
    """Images and conditions to one logit: real, and rightly labelled, or not."""

    def __init__(
        self, *, condition_size: int, image_shape: tuple[int, int, int], width: int
    ) -> None:
        super().__init__()
        height, image_width, channels = image_shape
        levels = halvings(height, image_width)
        maps = level_channels(width, levels)
        self.from_image = nn.Sequential(
            nn.Conv2d(channels, maps[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)
        )
        self.downs = nn.Sequential(*map(_down, maps, maps[1:]))
        self.condition_size = condition_size
        if condition_size:
            self.embed = nn.Sequential(
                nn.Linear(condition_size, CONDITION_EMBEDDING), nn.LeakyReLU(0.2)
            )
            self.mix = nn.Sequential(
                nn.Conv2d(maps[-1] + CONDITION_EMBEDDING, maps[-1], 1, bias=False),
                _batch_norm(maps[-1]),
                nn.LeakyReLU(0.2),
            )
        last = (height >> levels, image_width >> levels)
        self.to_logit = nn.Conv2d(maps[-1], 1, last)
        if condition_size:
            self.to_label_logits = nn.Conv2d(maps[-1], condition_size, last)
        self.apply(_initialise)

    def features(self, images: Tensor) -> Tensor:
        """``[N, channels, H, W]`` in [-1, 1] to the last feature map ``[N, F, h, w]``."""
        return self.downs(self.from_image(images))

    def judge(self, features: Tensor, condition: Tensor) -> Tensor:
        """The last feature map ``[N, F, h, w]`` and ``condition [N, C]`` to logits ``[N]``."""
        if self.condition_size:
            embedded = self.embed(condition)[:, :, None, None]
            embedded = embedded.expand(-1, -1, features.shape[2], features.shape[3])
            features = self.mix(torch.cat([features, embedded], dim=1))
        return self.to_logit(features).flatten()

    def read_labels(self, features: Tensor) -> Tensor:
        """The last feature map ``[N, F, h, w]`` to logits ``[N, C]``, laid out as a condition."""
        return self.to_label_logits(features).flatten(1)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """``images [N, channels, H, W]`` and ``condition [N, C]`` to logits ``[N]``."""
        return self.judge(self.features(images), condition)


def _up(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _down(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        _batch_norm(outputs),
        nn.LeakyReLU(0.2),
    )


def _batch_norm(channels: int) -> nn.Module:
    # The discriminator only ever sees whole batches in training: without running statistics it
    # has no state beside its parameters, so the generator's step leaves it untouched.
    return nn.BatchNorm2d(channels, track_running_stats=False)


def _initialise(module: nn.Module) -> None:
    """Radford et al. 2016, section 4: N(0, 0.02). The embedding of conditions is not theirs."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)
