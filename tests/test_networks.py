from __future__ import annotations

import pytest
import torch
from torch import nn

from training.networks import Discriminator, Generator, halvings

SHAPES = [
    (64, 64, 3),
    (28, 28, 1),
    (32, 32, 3),
    (48, 48, 1),
    (16, 16, 3),
    (112, 112, 3),
    (64, 32, 3),
]


def generator(shape: tuple[int, int, int] = (64, 64, 3), condition_size: int = 5) -> Generator:
    return Generator(latent_size=10, condition_size=condition_size, image_shape=shape, width=4)


def discriminator(
    shape: tuple[int, int, int] = (64, 64, 3), condition_size: int = 5
) -> Discriminator:
    return Discriminator(condition_size=condition_size, image_shape=shape, width=4)


@pytest.mark.parametrize("condition_size", [0, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_images_have_the_shape_and_range_of_the_data(
    shape: tuple[int, int, int], condition_size: int
) -> None:
    height, width, channels = shape
    condition = torch.zeros(3, condition_size)
    images = generator(shape, condition_size)(torch.randn(3, 10), condition)
    assert images.shape == (3, channels, height, width)
    assert images.abs().max() <= 1
    assert discriminator(shape, condition_size)(images, condition).shape == (3,)


def test_the_two_networks_of_the_paper() -> None:
    """Radford et al. 2016, figure 1: z of 100, 1024 channels at 4x4, down to 64x64x3."""
    paper = Generator(latent_size=100, condition_size=0, image_shape=(64, 64, 3), width=128)
    convolutions = [m for m in paper.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in convolutions] == [1024, 512, 256, 128, 3]
    assert [m.kernel_size for m in convolutions] == [(4, 4)] * 5
    digits = Generator(latent_size=100, condition_size=0, image_shape=(28, 28, 1), width=64)
    convolutions = [m for m in digits.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.kernel_size for m in convolutions] == [(7, 7), (4, 4), (4, 4)]


@pytest.mark.parametrize("network", [generator(), discriminator()])
def test_rules_of_the_paper(network: nn.Module) -> None:
    kinds = [type(module) for module in network.modules()]
    assert not any("Pool" in kind.__name__ for kind in kinds)
    strided = [
        m.stride == (2, 2)
        for m in network.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and m.kernel_size == (4, 4)
    ]
    assert strided.count(True) == 4
    if isinstance(network, Generator):
        assert nn.Linear not in kinds
        assert kinds.count(nn.ReLU) == kinds.count(nn.BatchNorm2d) == 4
    else:
        assert nn.ReLU not in kinds
        assert kinds.count(nn.BatchNorm2d) == 3 + 1  # none where the image enters; one where mixed


@pytest.mark.parametrize("shape", [(64, 64, 3), (28, 28, 1)])
def test_an_image_does_not_depend_on_its_batch(shape: tuple[int, int, int]) -> None:
    network = generator(shape).eval()
    latent, condition = torch.randn(6, 10), torch.randn(6, 5)
    together = network(latent, condition)
    assert torch.allclose(network(latent[2:3], condition[2:3]), together[2:3], atol=1e-6)


def test_both_networks_see_the_condition() -> None:
    one, other = torch.eye(5)[:2, None]
    latent, images = torch.randn(1, 10), torch.randn(4, 3, 64, 64)
    network = generator().eval()
    assert not torch.equal(network(latent, one), network(latent, other))
    judge = discriminator()
    assert not torch.equal(judge(images, one.expand(4, 5)), judge(images, other.expand(4, 5)))


def test_weights_start_as_in_the_paper() -> None:
    torch.manual_seed(0)
    network = Generator(latent_size=100, condition_size=0, image_shape=(64, 64, 3), width=64)
    weights = network.get_submodule("ups.0.0").weight
    assert isinstance(weights, torch.Tensor)
    assert abs(weights.mean()) < 1e-3
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize(
    ("height", "width", "count"), [(64, 64, 4), (28, 28, 2), (48, 48, 3), (128, 64, 4)]
)
def test_halvings(height: int, width: int, count: int) -> None:
    assert halvings(height, width) == count


@pytest.mark.parametrize("size", [3, 8, 15, 30, 50])
def test_sizes_that_do_not_work_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"images of {size}x{size} cannot be halved twice"):
        halvings(size, size)
