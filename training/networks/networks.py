"""The DCGAN of Radford, Metz and Chintala 2016 (https://arxiv.org/abs/1511.06434, section 3).

Strided and transposed convolutions of 4x4, no pooling, no fully connected hidden layers on the way
of the image, batch norm except where images enter or leave, ReLU and tanh in the generator,
LeakyReLU in the discriminator. Convolutions start as N(0, 0.02).

A condition is a row of one-hot vectors, one for each attribute, side by side: attributes are never
multiplied into one class per combination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.config import MINIBATCH_GROUPS, TrainingConfig
from training.networks.minibatch import MinibatchDiscrimination, MinibatchStddev
from training.networks.norms import BatchNorm, ConditionalBatchNorm, discriminator_norm

SMALLEST_SIDE = 4
LARGEST_FACTOR = 8
CONDITION_EMBEDDING = 128
DISCRIMINATION_KERNELS = 32
DISCRIMINATION_DIMS = 8


@dataclass(frozen=True)
class Style:
    """What differs between the two families of networks."""

    kernel: int
    refine: bool
    """Whether the generator begins with one more convolution, at its smallest size."""
    leak: float
    """Slope below 0 of the generator's ReLU."""
    d_leak: float
    """The same of the discriminator's."""
    dropout: float
    """Share of the discriminator's features that is dropped after every convolution."""

    def up(
        self, inputs: int, outputs: int, *, stride: int = 2, bias: bool = False
    ) -> nn.ConvTranspose2d:
        extra = stride - 1 if self.kernel % 2 else 0
        padding = (self.kernel - 1) // 2
        return nn.ConvTranspose2d(
            inputs, outputs, self.kernel, stride, padding, output_padding=extra, bias=bias
        )

    def down(self, inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, self.kernel, 2, (self.kernel - 1) // 2, bias=bias)


STYLES = {
    "dcgan": Style(kernel=4, refine=False, leak=0, d_leak=0.2, dropout=0),
    # TensorFlow's tutorial on MNIST (https://www.tensorflow.org/tutorials/generative/dcgan).
    "dcgan-mnist": Style(kernel=5, refine=True, leak=0.3, d_leak=0.3, dropout=0.3),
}


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


class Block(nn.Module):
    """Convolution, normalisation, activation of the generator."""

    def __init__(
        self, convolution: nn.ConvTranspose2d, channels: int, condition_size: int, leak: float
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm: BatchNorm | ConditionalBatchNorm = (
            ConditionalBatchNorm(channels, condition_size)
            if condition_size
            else BatchNorm(channels)
        )
        self.activation = nn.LeakyReLU(leak) if leak else nn.ReLU()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.activation(self.norm(self.convolution(x), condition))


class Generator(nn.Module):
    """Latents and conditions to images.

    The condition enters beside the latent (``config.g_condition`` is ``input``, Mirza and Osindero
    2014, https://arxiv.org/abs/1411.1784) or through every batch norm (``norm``).
    """

    condition_strength: Tensor

    def __init__(
        self, config: TrainingConfig, *, condition_size: int, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        height, image_width, channels = image_shape
        levels = halvings(height, image_width)
        style = STYLES[config.network]
        self.reads_input = config.g_condition == "input"
        in_norms = 0 if self.reads_input else condition_size
        inputs = config.latent_size + condition_size - in_norms
        maps = level_channels(config.width, levels)[::-1]
        if style.refine:
            maps = [2 * maps[0], *maps]
        start = nn.ConvTranspose2d(
            inputs, maps[0], (height >> levels, image_width >> levels), bias=False
        )
        blocks = [Block(start, maps[0], in_norms, style.leak)]  # "project and reshape"
        for index, (before, after) in enumerate(pairwise(maps)):
            stride = 1 if style.refine and index == 0 else 2
            convolution = style.up(before, after, stride=stride)
            blocks.append(Block(convolution, after, in_norms, style.leak))
        # PyTorch types a ModuleList as if it held any module.
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.to_image = style.up(maps[-1], channels, bias=True)
        self.latent_size = config.latent_size
        self.condition_size = condition_size
        self.image_shape = image_shape
        self.register_buffer("condition_strength", torch.ones(()))
        self.apply(_initialise)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """``latent [N, Z]`` and ``condition [N, C]`` (C may be 0) to ``[N, channels, H, W]``.

        The image lies in [-1, 1].
        """
        condition = condition * self.condition_strength
        x = torch.cat([latent, condition], dim=1) if self.reads_input else latent
        x = x[:, :, None, None]
        for block in self.blocks:
            x = block(x, condition)
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    """Images and conditions to one logit: real, and rightly labelled, or not.

    ``config.d_condition`` says where it reads the condition:

    input       as maps beside the image's colours (Mirza and Osindero 2014, as the first
                conditional DCGANs did)
    mix         embedded, repeated over the last feature map and mixed in by a 1x1 convolution
                (Reed et al. 2016, https://arxiv.org/abs/1605.05396, section 4.1)
    projection  as the inner product of its embedding and the features (Miyato and Koyama 2018,
                https://arxiv.org/abs/1802.05637, equation 3; one embedding for each attribute)
    none        nowhere: the labels are learnt from the head alone

    A head reads the labels off an image, as in Odena et al. 2017
    (https://arxiv.org/abs/1610.09585).
    """

    condition_strength: Tensor

    def __init__(
        self, config: TrainingConfig, *, condition_size: int, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        height, image_width, channels = image_shape
        levels = halvings(height, image_width)
        style = STYLES[config.network]
        maps = level_channels(config.width, levels)
        last = (height >> levels, image_width >> levels)
        self.condition_size = condition_size
        self.reads = config.d_condition if condition_size else "none"
        has_bias = config.d_norm != "batch"

        inputs = channels + (condition_size if self.reads == "input" else 0)
        layers = [style.down(inputs, maps[0], bias=True), *_activation(style)]
        for before, after in pairwise(maps):
            layers.append(style.down(before, after, bias=has_bias))
            if config.d_norm == "batch":
                layers.append(discriminator_norm(after))
            layers += _activation(style)
        self.to_features = nn.Sequential(*layers)
        if self.reads == "mix":
            self.embed = nn.Sequential(
                nn.Linear(condition_size, CONDITION_EMBEDDING), nn.LeakyReLU(0.2)
            )
            mixing = nn.Conv2d(maps[-1] + CONDITION_EMBEDDING, maps[-1], 1, bias=has_bias)
            norm = [discriminator_norm(maps[-1])] if config.d_norm == "batch" else []
            self.mix = nn.Sequential(mixing, *norm, nn.LeakyReLU(0.2))
        if self.reads == "projection":
            self.project = nn.Linear(condition_size, maps[-1], bias=False)
        self.minibatch, grown = _minibatch(config.minibatch, maps[-1], last)
        is_flat = config.minibatch == "discrimination"
        self.to_logit = nn.Linear(grown, 1) if is_flat else nn.Conv2d(grown, 1, last)
        if condition_size and config.label_weight:
            self.to_label_logits = nn.Conv2d(maps[-1], condition_size, last)
        self.register_buffer("condition_strength", torch.ones(()))
        self.apply(_initialise)
        if config.d_norm == "spectral":
            self.apply(_normalise_spectrally)

    def forward(self, images: Tensor, *conditions: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Judge ``images [N, channels, H, W]`` in [-1, 1] under each of ``conditions [N, C]``.

        Returns logits ``[N]`` for each condition, and the logits of the labels ``[N, C]``, laid out
        as a condition, where there is a head for them.
        """
        logits: list[Tensor] = []
        features = None
        for condition in conditions:
            condition = condition * self.condition_strength
            if features is None or self.reads == "input":
                features = self._features(images, condition)
            logits.append(self._judge(features, condition).float())
        assert features is not None
        if not hasattr(self, "to_label_logits"):
            return logits, None
        return logits, self.to_label_logits(features).flatten(1).float()

    def _features(self, images: Tensor, condition: Tensor) -> Tensor:
        """The last feature map ``[N, F, h, w]``."""
        if self.reads == "input":
            maps = condition[:, :, None, None].expand(-1, -1, *images.shape[2:])
            images = torch.cat([images, maps.to(images.dtype)], dim=1)
        return self.to_features(images)

    def _judge(self, features: Tensor, condition: Tensor) -> Tensor:
        x = features
        if self.reads == "mix":
            embedded = self.embed(condition)[:, :, None, None]
            x = self.mix(torch.cat([x, embedded.expand(-1, -1, *x.shape[2:])], dim=1))
        logit = self.to_logit(self.minibatch(x)).flatten()
        if self.reads == "projection":
            logit = logit + (self.project(condition) * features.sum((2, 3))).sum(dim=1)
        return logit


def _activation(style: Style) -> list[nn.Module]:
    dropout = [Dropout(style.dropout)] if style.dropout else []
    return [nn.LeakyReLU(style.d_leak), *dropout]


class Dropout(nn.Dropout):
    """Dropout that ``eval`` leaves on: the discriminator only exists in training."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p, training=True)


def _minibatch(kind: str, channels: int, last: tuple[int, int]) -> tuple[nn.Module, int]:
    """A layer that compares the images of a batch, and the size of what it gives."""
    group = MINIBATCH_GROUPS[kind]
    if kind == "stddev":
        return MinibatchStddev(group), channels + 1
    if kind == "discrimination":
        flat = channels * last[0] * last[1]
        layer = MinibatchDiscrimination(flat, DISCRIMINATION_KERNELS, DISCRIMINATION_DIMS, group)
        return nn.Sequential(nn.Flatten(), layer), flat + DISCRIMINATION_KERNELS
    return nn.Identity(), channels


def _initialise(module: nn.Module) -> None:
    """Radford et al. 2016, section 4: N(0, 0.02). The embedding of conditions is not theirs."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Discriminator) and module.reads == "projection":
        # As small as the other way to the logit, or labels drown the image.
        nn.init.normal_(module.project.weight, 0, 0.02)


def _normalise_spectrally(module: nn.Module) -> None:
    """Miyato et al. 2018 (https://arxiv.org/abs/1802.05957): every layer's largest singular value
    is 1, estimated by one step of power iteration an update."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        spectral_norm(module)
