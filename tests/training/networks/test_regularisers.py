from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.networks.regularisers import one_centred, zero_centred

SHAPE = (2, 4, 4)


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """w x + 5: its gradient is w everywhere."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        weight = noise(1, seed=7)
        self.weight = nn.Parameter(norm * weight / weight.norm())

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weight).sum(dim=(1, 2, 3)) + 5


class Quadratic(nn.Module):
    """a |x|^2 / 2: its gradient is a x."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))

    def forward(self, images: Tensor) -> Tensor:
        return self.a * images.square().sum(dim=(1, 2, 3)) / 2


def test_zero_centred_is_half_the_squared_norm_of_the_gradient() -> None:
    images = noise(6)
    assert zero_centred(Linear(3), images).item() == pytest.approx(9 / 2)
    assert zero_centred(Linear(0), images).item() == 0
    expected = 2**2 * images.square().sum(dim=(1, 2, 3)).mean().item() / 2
    assert zero_centred(Quadratic(2), images).item() == pytest.approx(expected)


@pytest.mark.parametrize(("norm", "expected"), [(1, 0), (3, 10 * 4), (0, 10), (0.5, 2.5)])
def test_one_centred_penalises_norms_other_than_one(norm: float, expected: float) -> None:
    uniform = torch.tensor([0.1, 0.5, 0.9])
    found = one_centred(Linear(norm), noise(3), noise(3, seed=1), uniform)
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_one_centred_interpolates_real_and_generated_images() -> None:
    real, fake, uniform = noise(4), noise(4, seed=1), torch.tensor([0.0, 0.25, 0.5, 0.999])
    norms = [
        2 * ((1 - share) * one + share * other).norm().item()
        for one, other, share in zip(real, fake, uniform.tolist(), strict=True)
    ]
    expected = 10 * sum((norm - 1) ** 2 for norm in norms) / 4
    assert one_centred(Quadratic(2), real, fake, uniform).item() == pytest.approx(expected)


def test_gradients_reach_the_weights() -> None:
    """d/dw of |w|^2 / 2 is w; of 10 (|w| - 1)^2 it is 20 (|w| - 1) w / |w|."""
    judge = Linear(3)
    zero_centred(judge, noise(5)).backward()
    assert judge.weight.grad is not None
    assert torch.allclose(judge.weight.grad, judge.weight, atol=1e-6)

    judge.weight.grad = None
    one_centred(judge, noise(5), noise(5, seed=1), torch.rand(5)).backward()
    assert judge.weight.grad is not None
    assert torch.allclose(judge.weight.grad, 20 * 2 * judge.weight / 3, atol=1e-4)

    quadratic, images = Quadratic(2), noise(5)
    zero_centred(quadratic, images).backward()
    assert quadratic.a.grad is not None
    expected = 2 * images.square().sum(dim=(1, 2, 3)).mean().item()
    assert quadratic.a.grad.item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["zero", "one"])
def test_gradients_equal_finite_differences_on_a_network(kind: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0)
    ).double()
    images, fake = noise(3).double(), noise(3, seed=1).double()
    weight = network[0].weight
    assert isinstance(weight, nn.Parameter)

    def penalty() -> Tensor:
        if kind == "zero":
            return zero_centred(network, images)
        return one_centred(network, images, fake, torch.tensor([0.2, 0.5, 0.7]).double())

    penalty().backward()
    assert weight.grad is not None
    slopes = torch.zeros_like(weight)
    with torch.no_grad():
        for index in range(weight.numel()):
            for step in (1e-5, -1e-5):
                weight.view(-1)[index] += step
                with torch.enable_grad():
                    slopes.view(-1)[index] += penalty().item() / (2 * step)
                weight.view(-1)[index] -= step
    assert torch.allclose(weight.grad, slopes, rtol=1e-4, atol=1e-7)


def test_images_get_no_gradients_of_a_penalty() -> None:
    """The generator must not be trained on the penalty."""
    images = noise(3).requires_grad_(True)
    zero_centred(Quadratic(2), images).backward()
    assert images.grad is None


def test_penalty_of_a_batch_is_the_mean_over_its_images() -> None:
    """Two images give the mean of their penalties."""
    images, judge = noise(2), Quadratic(1.5)
    apart = [zero_centred(judge, images[i : i + 1]).item() for i in range(2)]
    assert zero_centred(judge, images).item() == pytest.approx(sum(apart) / 2)
