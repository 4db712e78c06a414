"""The DCGAN of Radford, Metz and Chintala 2016 (https://arxiv.org/abs/1511.06434, section 3).

Strided and transposed 4x4 convolutions, no pooling, no fully connected hidden layers between image
and features, batch norm except where images enter or leave, ReLU and tanh in the generator,
LeakyReLU in the discriminator. Convolutions start as N(0, 0.02).

A condition is the concatenation of one one-hot vector per attribute; combinations of attributes are
never separate classes.
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
from training.networks.norms import BatchNorm, Chain, ConditionalBatchNorm, discriminator_norm
from training.networks.resampling import SmoothUp, with_band

MIN_SIDE = 4
"""Shortest side of the smallest feature map, in pixels."""
MAX_FACTOR = 8
"""Most channels of a feature map, in multiples of ``width``."""
CONDITION_EMBEDDING = 128
DISCRIMINATION_KERNELS = 32
DISCRIMINATION_DIMS = 8


@dataclass(frozen=True)
class Style:
    """Differences between the two families of networks."""

    kernel: int
    refine: bool
    """True if the generator starts with an additional convolution at its smallest size."""
    leak: float
    """Negative slope of the generator's ReLU."""
    d_leak: float
    """Negative slope of the discriminator's ReLU."""
    dropout: float
    """Dropout probability after each convolution of the discriminator."""

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
    """Number of times that both sides can be halved and remain integers of at least 4.

    64x64 gives 4 (down to 4x4), 28x28 gives 2 (down to 7x7). Raises ``ValueError`` below 2, which
    leaves no layers to train.
    """
    count = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= MIN_SIDE:
        height, width, count = height // 2, width // 2, count + 1
    if count < 2:
        raise ValueError(
            f"images of {width << count}x{height << count} cannot be halved twice down to 4 or "
            "more; use 28x28 or sides that are multiples of 16"
        )
    return count


def feature_maps(
    width: int, image_shape: tuple[int, int, int]
) -> tuple[list[int], tuple[int, int]]:
    """Channels of the feature maps, largest map first, and the size of the smallest map.

    Channels are w, 2w, 4w, 8w, 8w ... for a ``width`` of w.
    """
    height, image_width, _ = image_shape
    levels = halvings(height, image_width)
    channels = [width * min(2**level, MAX_FACTOR) for level in range(levels)]
    return channels, (height >> levels, image_width >> levels)


class Block(nn.Module):
    """One layer of the generator: transposed convolution, batch norm, activation."""

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
    """Generator: latents and conditions to images.

    The condition is concatenated to the latent if ``config.g_condition`` is ``input`` (Mirza and
    Osindero 2014, https://arxiv.org/abs/1411.1784), or modulates each batch norm if it is ``norm``.
    """

    condition_strength: Tensor

    def __init__(
        self, config: TrainingConfig, *, condition_size: int, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        style = STYLES[config.network]
        maps, smallest = feature_maps(config.width, image_shape)
        self.reads_input = config.g_condition == "input"
        in_norms = 0 if self.reads_input else condition_size
        inputs = config.latent_size + condition_size - in_norms
        maps.reverse()
        if style.refine:
            maps = [2 * maps[0], *maps]
        start = nn.ConvTranspose2d(inputs, maps[0], smallest, bias=False)
        blocks = [Block(start, maps[0], in_norms, style.leak)]  # "project and reshape"
        for index, (before, after) in enumerate(pairwise(maps)):
            stride = 1 if style.refine and index == 0 else 2
            convolution = style.up(before, after, stride=stride)
            blocks.append(Block(convolution, after, in_norms, style.leak))
        to_image: nn.Module
        if config.last_block == "detail":
            half = max(maps[-1] // 2, 1)
            blocks.append(Block(style.up(maps[-1], half), half, in_norms, style.leak))
            to_image = nn.Conv2d(half, image_shape[2], 3, padding=1)
        elif config.last_block == "transposed":
            to_image = style.up(maps[-1], image_shape[2], bias=True)
        else:
            to_image = SmoothUp(config.last_block, maps[-1], image_shape[2])
        # In PyTorch's types a ModuleList holds modules of any class.
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.to_image = to_image
        self.latent_size = config.latent_size
        self.condition_size = condition_size
        self.image_shape = image_shape
        self.register_buffer("condition_strength", torch.ones(()))
        self.apply(_initialise)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """``latent [N, Z]``, ``condition [N, C]`` to images ``[N, channels, H, W]`` in [-1, 1].

        C is 0 for an unconditional model.
        """
        condition = condition * self.condition_strength
        x = torch.cat([latent, condition], dim=1) if self.reads_input else latent
        x = x[:, :, None, None]
        for block in self.blocks:
            x = block(x, condition)
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    """Discriminator: images and conditions to one logit, high for real and correctly labelled.

    ``config.d_condition`` selects where it reads the condition:

    input       as additional image channels (Mirza and Osindero 2014)
    mix         embedded, repeated over the last feature map and mixed in by a 1x1 convolution
                (Reed et al. 2016, https://arxiv.org/abs/1605.05396, section 4.1)
    projection  as the inner product of its embedding and the features (Miyato and Koyama 2018,
                https://arxiv.org/abs/1802.05637, equation 3; one embedding for each attribute)
    none        nowhere: only the label head learns labels

    A label head classifies the labels of an image, as in Odena et al. 2017
    (https://arxiv.org/abs/1610.09585).
    """

    condition_strength: Tensor

    def __init__(
        self, config: TrainingConfig, *, condition_size: int, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        style = STYLES[config.network]
        maps, smallest = feature_maps(config.d_width or config.width, image_shape)
        self.condition_size = condition_size
        self.reads = config.d_condition if condition_size else "none"
        has_bias = config.d_norm != "batch"
        self.band = config.d_band

        inputs = image_shape[2] * (1 + config.d_band) + (
            condition_size if self.reads == "input" else 0
        )
        layers = [style.down(inputs, maps[0], bias=True), *_activation(style)]
        for before, after in pairwise(maps):
            layers.append(style.down(before, after, bias=has_bias))
            layers += _norm(config.d_norm, after)
            layers += _activation(style)
        self.to_features = nn.Sequential(*layers)
        if self.reads == "mix":
            self.embed = nn.Sequential(
                nn.Linear(condition_size, CONDITION_EMBEDDING), nn.LeakyReLU(0.2)
            )
            mixing = nn.Conv2d(maps[-1] + CONDITION_EMBEDDING, maps[-1], 1, bias=has_bias)
            self.mix = nn.Sequential(mixing, *_norm(config.d_norm, maps[-1]), nn.LeakyReLU(0.2))
        if self.reads == "projection":
            self.project = nn.Linear(condition_size, maps[-1], bias=False)
        self.minibatch, outputs = _minibatch(config.minibatch, maps[-1], smallest)
        is_flat = config.minibatch == "discrimination"
        self.to_logit = nn.Linear(outputs, 1) if is_flat else nn.Conv2d(outputs, 1, smallest)
        if condition_size and config.label_weight:
            self.to_label_logits = nn.Conv2d(maps[-1], condition_size, smallest)
        self.register_buffer("condition_strength", torch.ones(()))
        self.apply(_initialise)
        if config.d_norm in ("spectral", "chain"):
            self.apply(_normalise_spectrally)

    def forward(self, images: Tensor, *conditions: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Judge ``images [N, channels, H, W]`` in [-1, 1] under each of ``conditions [N, C]``.

        Returns logits ``[N]`` for each condition, and the label logits ``[N, C]``, ordered like a
        condition, or None without a label head.
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
        """Last feature map ``[N, F, h, w]``."""
        if self.band:
            images = with_band(images)
        if self.reads == "input":
            maps = condition[:, :, None, None].expand(-1, -1, *images.shape[2:])
            images = torch.cat([images, maps.to(images.dtype)], dim=1)
        return self.to_features(images)

    def _judge(self, features: Tensor, condition: Tensor) -> Tensor:
        """``features [N, F, h, w]`` and ``condition [N, C]`` to logits ``[N]``."""
        x = features
        if self.reads == "mix":
            embedded = self.embed(condition)[:, :, None, None]
            x = self.mix(torch.cat([x, embedded.expand(-1, -1, *x.shape[2:])], dim=1))
        logit = self.to_logit(self.minibatch(x)).flatten()
        if self.reads == "projection":
            logit = logit + (self.project(condition) * features.sum((2, 3))).sum(dim=1)
        return logit


def _norm(kind: str, channels: int) -> list[nn.Module]:
    """Normalisation between a convolution of the discriminator and its activation."""
    if kind == "batch":
        return [discriminator_norm(channels)]
    return [Chain()] if kind == "chain" else []


def _activation(style: Style) -> list[nn.Module]:
    dropout = [Dropout(style.dropout)] if style.dropout else []
    return [nn.LeakyReLU(style.d_leak), *dropout]


class Dropout(nn.Dropout):
    """Dropout that stays active in ``eval`` mode: the discriminator is only used in training."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p, training=True)


def _minibatch(kind: str, channels: int, last: tuple[int, int]) -> tuple[nn.Module, int]:
    """Minibatch layer of this kind, and its number of output channels."""
    group = MINIBATCH_GROUPS[kind]
    if kind == "stddev":
        return MinibatchStddev(group), channels + 1
    if kind == "discrimination":
        flat = channels * last[0] * last[1]
        layer = MinibatchDiscrimination(flat, DISCRIMINATION_KERNELS, DISCRIMINATION_DIMS, group)
        return nn.Sequential(nn.Flatten(), layer), flat + DISCRIMINATION_KERNELS
    return nn.Identity(), channels


def _initialise(module: nn.Module) -> None:
    """Initialise weights as N(0, 0.02) (Radford et al. 2016, section 4)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | SmoothUp):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Discriminator) and module.reads == "projection":
        # As small as the weights of the image's path, or the labels dominate the logit.
        nn.init.normal_(module.project.weight, 0, 0.02)


def _normalise_spectrally(module: nn.Module) -> None:
    """Divide each weight by its largest singular value (Miyato et al. 2018).

    https://arxiv.org/abs/1802.05957; estimated by one step of power iteration per update.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        spectral_norm(module)
