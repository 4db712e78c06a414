from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training.networks.minibatch import MinibatchDiscrimination, MinibatchStddev

# Both with groups of 3; the layer of images reads rows as maps of 1x1.
LAYERS = [MinibatchDiscrimination(4, 5, 2, group=3), MinibatchStddev(group=3)]


def apply(layer: nn.Module, rows: Tensor) -> Tensor:
    """Features ``[N, K]`` that either layer adds to ``rows [N, 4]``."""
    if isinstance(layer, MinibatchStddev):
        return layer(rows[:, :, None, None])[:, 4:, 0, 0]
    return layer(rows)[:, 4:]


def test_discrimination_equals_its_formula() -> None:
    layer = MinibatchDiscrimination(features=2, kernels=2, dims=2, group=3)
    with torch.no_grad():
        # Kernel 0 reads (x, y); kernel 1 reads (2x, 0).
        layer.T.copy_(torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]))
    rows = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 3.0]])
    # Distances of rows 0-1, 0-2, 1-2: for kernel 0 they are 3, 3, 2; for kernel 1 they are 2, 0, 2.
    near, far = math.exp(-2), math.exp(-3)
    expected = [2 * far, near + 1, far + near, 2 * near, far + near, 1 + near]
    found = layer(rows)
    assert torch.equal(found[:, :2], rows)
    assert found[:, 2:].flatten().tolist() == pytest.approx(expected)


def test_discrimination_of_equal_rows_is_their_number_minus_one() -> None:
    layer = MinibatchDiscrimination(features=4, kernels=5, dims=2, group=3)
    assert layer(torch.ones(6, 4))[:, 4:].tolist() == [[2.0] * 5] * 6


def test_stddev_equals_its_formula() -> None:
    maps = torch.zeros(4, 2, 1, 2)
    maps[:2, 0, 0, 0] = torch.tensor([1.0, 5.0])  # deviation 2
    maps[:2, 1, 0, 1] = torch.tensor([0.0, 8.0])  # deviation 4; the other two pixels 0
    maps[2:] = 7.0
    found = MinibatchStddev(group=2)(maps)
    assert found.shape == (4, 3, 1, 2)
    assert torch.equal(found[:, :2], maps)
    expected = [1.5, 1.5, 1.5, 1.5, 0, 0, 0, 0]
    assert found[:, 2].flatten().tolist() == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_groups_are_independent(layer: nn.Module) -> None:
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    changed = rows.clone()
    changed[4] += 1
    before, after = apply(layer, rows), apply(layer, changed)
    moved = (before != after).any(dim=1)
    assert moved.tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert torch.allclose(apply(layer, rows[3:6]), before[3:6])  # whatever the batch


@pytest.mark.parametrize("layer", LAYERS)
def test_order_in_a_group_does_not_matter(layer: nn.Module) -> None:
    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(apply(layer, rows.flip(0)), apply(layer, rows).flip(0))


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_are_finite_if_all_rows_are_equal(layer: nn.Module) -> None:
    rows = torch.ones(6, 4, requires_grad=True)
    apply(layer, rows).sum().backward()
    gradients = [rows.grad, *(parameter.grad for parameter in layer.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_stddev_is_accurate_in_half_precision() -> None:
    maps = torch.ones(2, 3, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    found = MinibatchStddev(group=2)(maps)
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all()


@pytest.mark.parametrize("layer", LAYERS)
def test_batch_that_groups_do_not_divide_is_rejected(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match="a batch of 8 cannot be divided into groups of 3"):
        apply(layer, torch.ones(8, 4))


def test_group_of_one_is_rejected() -> None:
    with pytest.raises(ValueError, match="a group of 1 has nothing to compare"):
        MinibatchDiscrimination(4, 5, 2, group=1)
    with pytest.raises(ValueError, match="a group of 1 has nothing to compare"):
        MinibatchStddev(group=1)
