from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, interpolate

from tests.training.networks.test_networks import discriminator, generator
from training.evaluation.metrics.spectrum import powers
from training.networks.resampling import BAND_GAIN, SmoothUp, with_band


def layer(kind: str) -> SmoothUp:
    made = SmoothUp(kind, 6, 3)
    with torch.no_grad():
        made.weight.normal_()
        made.bias.normal_()
    return made.requires_grad_(False)


def test_nearest_is_repetition_and_a_convolution() -> None:
    made, x = layer("nearest"), torch.randn(2, 6, 8, 8)
    kernel = made.weight.transpose(0, 1).flip(2, 3)
    expected = conv2d(interpolate(x, scale_factor=2), kernel, made.bias, padding=1)
    assert torch.allclose(made(x), expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "taps"), [("blurred", [1, 2, 1]), ("soft", [1, 4, 1])])
def test_blurred_is_a_transposed_convolution_and_a_filter(kind: str, taps: list[int]) -> None:
    made, x = layer(kind), torch.randn(2, 6, 8, 8)
    sharp = conv_transpose2d(x, made.weight, stride=2)
    row = torch.tensor(taps) / sum(taps)
    blur = row.outer(row).expand(3, 1, 3, 3)
    expected = conv2d(sharp, blur, made.bias, padding=1, groups=3)[:, :, 1:-1, 1:-1]
    assert torch.allclose(made(x), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["nearest", "soft", "blurred"])
def test_folded_is_the_same_function(kind: str) -> None:
    made, x = layer(kind), torch.randn(2, 6, 8, 8)
    assert made(x).shape == (2, 3, 16, 16)
    assert torch.allclose(made.folded()(x), made(x), atol=1e-4)


def hatch(last_block: str) -> float:
    """Power of the checkerboard in images of an untrained generator."""
    torch.manual_seed(0)
    network = generator(condition_size=0, last_block=last_block, width=8)
    with torch.no_grad():
        images = network(torch.randn(64, 10), torch.zeros(64, 0))
    scaled = 127.5 + 20 * images / images.std()
    return powers(scaled.clamp(0, 255).byte().permute(0, 2, 3, 1))[1]


@pytest.mark.parametrize("last_block", ["blurred", "nearest"])
def test_smooth_last_blocks_take_the_hatch_away_before_any_training(last_block: str) -> None:
    assert hatch(last_block) < hatch("transposed") / 20


@pytest.mark.parametrize("last_block", ["soft", "blurred", "nearest", "detail"])
@pytest.mark.parametrize("shape", [(64, 64, 3), (28, 28, 1), (64, 32, 3)])
def test_images_have_the_shape_of_the_data(last_block: str, shape: tuple[int, int, int]) -> None:
    images = generator(shape, last_block=last_block)(torch.randn(3, 10), torch.zeros(3, 5))
    assert images.shape == (3, shape[2], *shape[:2])


def test_band_is_what_a_blur_takes_away() -> None:
    corners = torch.arange(16)
    board: Tensor = (1.0 - 2 * ((corners[:, None] + corners) % 2)).expand(2, 3, 16, 16)
    slope = torch.linspace(-1, 1, 16).expand(2, 3, 16, 16)
    found = with_band(slope + board / 10)
    assert torch.equal(found[:, :3], slope + board / 10)
    # A slope has no details but at its ends, and a checkerboard nothing else.
    assert torch.allclose(
        found[:, 3:, 1:-1, 1:-1], BAND_GAIN * board[..., 1:-1, 1:-1] / 10, atol=1e-5
    )


def test_discriminator_sees_the_band() -> None:
    network = discriminator(d_band=True, d_condition="input", label_weight=0)
    assert network.to_features[0].in_channels == 3 + 3 + 5
    (logits,), _ = network(torch.randn(3, 3, 64, 64), torch.zeros(3, 5))
    assert logits.shape == (3,)


def test_wider_discriminator_leaves_the_generator_as_it_is() -> None:
    assert discriminator(d_width=6).to_features[0].out_channels == 6
    assert discriminator().to_features[0].out_channels == 4
    assert generator(d_width=6).blocks[-1].convolution.out_channels == 4
