from __future__ import annotations

import pytest
import torch
from torch import nn

from training.config import TrainingConfig
from training.networks.networks import Discriminator, Generator, halvings
from training.networks.norms import BatchNorm, ConditionalBatchNorm

SHAPES = [
    (64, 64, 3),
    (28, 28, 1),
    (32, 32, 3),
    (48, 48, 1),
    (16, 16, 3),
    (112, 112, 3),
    (64, 32, 3),
]


def config(**options: object) -> TrainingConfig:
    settings: dict[str, object] = {"data": "-", "name": "tiny", "width": 4, "latent_size": 10}
    return TrainingConfig.model_validate(settings | options)


def generator(
    shape: tuple[int, int, int] = (64, 64, 3), condition_size: int = 5, **options: object
) -> Generator:
    return Generator(config(**options), condition_size=condition_size, image_shape=shape)


def discriminator(
    shape: tuple[int, int, int] = (64, 64, 3), condition_size: int = 5, **options: object
) -> Discriminator:
    return Discriminator(config(**options), condition_size=condition_size, image_shape=shape)


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
    (logits,), label_logits = discriminator(shape, condition_size)(images, condition)
    assert logits.shape == (3,)
    assert (label_logits is not None) == (condition_size > 0)
    assert label_logits is None or label_logits.shape == (3, condition_size)


def test_networks_of_the_paper() -> None:
    """Radford et al. 2016, figure 1: z of 100, 1024 channels at 4x4, down to 64x64x3."""
    paper = generator(condition_size=0, latent_size=100, width=128)
    convolutions = [m for m in paper.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in convolutions] == [1024, 512, 256, 128, 3]
    assert [m.kernel_size for m in convolutions] == [(4, 4)] * 5
    digits = generator((28, 28, 1), condition_size=0, width=64)
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
        assert kinds.count(nn.ReLU) == kinds.count(BatchNorm) == 4
    else:
        assert nn.ReLU not in kinds
        assert kinds.count(BatchNorm) == 3 + 1  # none where the image enters; one where mixed


@pytest.mark.parametrize("shape", [(64, 64, 3), (28, 28, 1)])
def test_image_does_not_depend_on_its_batch(shape: tuple[int, int, int]) -> None:
    network = generator(shape).eval()
    latent, condition = torch.randn(6, 10), torch.randn(6, 5)
    together = network(latent, condition)
    assert torch.allclose(network(latent[2:3], condition[2:3]), together[2:3], atol=1e-6)


@pytest.mark.parametrize("g_condition", ["input", "norm"])
def test_generator_depends_on_the_condition(g_condition: str) -> None:
    one, other = torch.eye(5)[:2, None]
    network, latent = generator(g_condition=g_condition).eval(), torch.randn(1, 10)
    assert not torch.equal(network(latent, one), network(latent, other))


@pytest.mark.parametrize("d_condition", ["input", "mix", "projection", "none"])
def test_discriminator_depends_on_the_condition_if_configured(d_condition: str) -> None:
    weight = 0 if d_condition == "none" else 0.5
    network = discriminator(d_condition=d_condition, label_weight=0, mismatched_weight=weight)
    images = torch.randn(4, 3, 64, 64)
    conditions = [row.expand(4, 5) for row in torch.eye(5)[:2, None]]
    (one, other), _ = network(images, *conditions)
    assert torch.equal(one, other) == (d_condition == "none")
    # Judged together or apart, the logits are the same.
    assert torch.allclose(network(images, conditions[1])[0][0], other, atol=1e-5)


def test_embeddings_of_attributes_are_summed() -> None:
    """With two attributes of 2 and 3 values, the effect of one does not depend on the other."""
    network = discriminator(d_condition="projection", d_norm="none").eval()
    images = torch.randn(4, 3, 64, 64)

    def judged(*values: int) -> torch.Tensor:
        row = torch.zeros(5)
        row[list(values)] = 1
        (logits,), _ = network(images, row.expand(4, 5))
        return logits.detach()

    difference = judged(0, 2) - judged(1, 2)
    assert torch.allclose(difference, judged(0, 4) - judged(1, 4), atol=1e-5)
    assert torch.allclose(difference, judged(0) - judged(1), atol=1e-5)  # the other left open


def test_conditional_batch_norm_without_labels_is_batch_norm() -> None:
    conditional, plain, x = ConditionalBatchNorm(6, 5), BatchNorm(6), torch.randn(4, 6, 2, 2)
    assert torch.allclose(conditional(x, torch.zeros(4, 5)), plain(x), atol=1e-6)
    assert conditional(x, torch.eye(5)[:4]).shape == x.shape


def test_spectral_norm_bounds_every_layer() -> None:
    network = discriminator(d_norm="spectral", label_weight=0)
    images, condition = torch.randn(8, 3, 64, 64), torch.zeros(8, 5)
    for _ in range(50):  # power iterations
        network(images, condition)
    network.eval()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 4 + 3  # those of the image; embedding, mixing, logit
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert largest.item() == pytest.approx(1, rel=0.05)


def test_networks_of_the_mnist_tutorial() -> None:
    """https://www.tensorflow.org/tutorials/generative/dcgan: its layers, in its order."""
    networks = [
        build((28, 28, 1), 0, network="dcgan-mnist", width=64, d_norm="none")
        for build in (generator, discriminator)
    ]
    up = [m for m in networks[0].modules() if type(m) is nn.ConvTranspose2d]
    assert [m.out_channels for m in up] == [256, 128, 64, 1]
    assert [m.kernel_size for m in up] == [(7, 7), (5, 5), (5, 5), (5, 5)]
    assert [m.stride for m in up[1:]] == [(1, 1), (2, 2), (2, 2)]
    judge = networks[1]
    down = [m for m in judge.modules() if type(m) is nn.Conv2d]
    assert [m.out_channels for m in down] == [64, 128, 1]
    assert [m.kernel_size for m in down] == [(5, 5), (5, 5), (7, 7)]
    assert [m.p for m in judge.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]
    assert not any(isinstance(m, BatchNorm) for m in judge.modules())


def test_weights_are_initialised_as_in_the_paper() -> None:
    torch.manual_seed(0)
    weights = generator(width=64).blocks[1].convolution.weight
    assert abs(weights.mean()) < 1e-3
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize(
    ("height", "width", "count"), [(64, 64, 4), (28, 28, 2), (48, 48, 3), (128, 64, 4)]
)
def test_halvings(height: int, width: int, count: int) -> None:
    assert halvings(height, width) == count


@pytest.mark.parametrize("size", [3, 8, 15, 30, 50])
def test_unsupported_sizes_are_rejected(size: int) -> None:
    with pytest.raises(ValueError, match=f"images of {size}x{size} cannot be halved twice"):
        halvings(size, size)
