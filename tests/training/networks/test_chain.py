from __future__ import annotations

import pytest
import torch

from training.networks.norms import Chain


def maps() -> torch.Tensor:
    """Four channels with deviations of 1, 2, 3 and 4."""
    noise = torch.randn(512, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return noise * torch.arange(1.0, 5)[:, None, None]


def test_layer_without_share_is_the_identity() -> None:
    x = maps()
    layer = Chain()
    assert torch.equal(layer(x), x)
    assert layer.take_penalty() == 0


def test_full_share_gives_all_channels_the_smallest_power() -> None:
    layer = Chain()
    layer.share.fill_(1.0)
    power = layer(maps()).square().mean((0, 2, 3))
    assert power.tolist() == pytest.approx([maps()[:, 0].square().mean().item()] * 4, rel=1e-3)


def test_share_is_the_part_of_the_maps_that_changes() -> None:
    layer, x = Chain(), maps()
    layer.share.fill_(0.3)
    torch.manual_seed(0)
    changed = (layer(x) != x).all(dim=(2, 3))[:, 1:]  # the smallest channel keeps its power
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_penalty_draws_the_means_towards_zero_and_is_taken_once() -> None:
    layer = Chain()
    layer.share.fill_(0.5)
    x = (maps() + 1).requires_grad_()
    layer(x)
    layer(x)
    penalty = layer.take_penalty()
    means = x.detach().mean((0, 2, 3)).square().sum().item()
    assert penalty.item() == pytest.approx(2 * Chain.WEIGHT * 0.5 * means, rel=1e-4)
    (gradient,) = torch.autograd.grad(penalty, x)
    assert (gradient > 0).all()
    assert layer.take_penalty() == 0
    layer.eval()(x)
    assert layer.take_penalty() == 0


def test_share_grows_while_the_discriminator_leads_and_then_falls() -> None:
    layer = Chain()
    for _ in range(600):
        layer.follow(torch.ones(8))
    assert layer.share == 1
    for _ in range(100):
        layer.follow(torch.tensor([1.0, -1.0]))
    assert layer.share.item() == pytest.approx(1 - 90 * Chain.STEP, abs=0.02)
