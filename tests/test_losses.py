from __future__ import annotations

import math

import pytest
import torch

from training.losses import discriminator_loss, generator_loss, label_loss

LOGITS = torch.tensor([-2.0, 0.0, 3.0])


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_generator_loss_is_minus_log_d() -> None:
    expected = mean([-log_sigmoid(x) for x in LOGITS.tolist()])
    assert generator_loss(LOGITS).item() == pytest.approx(expected)


def test_discriminator_loss_is_cross_entropy() -> None:
    real = mean([-log_sigmoid(x) for x in LOGITS.tolist()])
    fake = mean([-log_sigmoid(-x) for x in (1.0, 2.0)])
    loss = discriminator_loss(LOGITS, torch.tensor([1.0, 2.0]), None)
    assert loss.item() == pytest.approx(real + fake)


def test_mismatched_and_generated_share_the_weight_of_one() -> None:
    zero = torch.zeros(3)
    assert discriminator_loss(zero, zero, zero).item() == pytest.approx(2 * math.log(2))
    sure = torch.full((3,), 50.0)
    assert discriminator_loss(sure, -sure, zero).item() == pytest.approx(math.log(2) / 2)


def test_gradients_push_the_right_way() -> None:
    real, fake, wrong = (torch.zeros(1, requires_grad=True) for _ in range(3))
    discriminator_loss(real, fake, wrong).backward()
    assert real.grad is not None and real.grad.item() < 0
    assert fake.grad is not None and fake.grad.item() > 0
    assert wrong.grad is not None and wrong.grad.item() > 0
    judged = torch.zeros(1, requires_grad=True)
    generator_loss(judged).backward()
    assert judged.grad is not None and judged.grad.item() < 0


def test_extreme_logits_stay_finite() -> None:
    extreme = torch.tensor([-1e4, 1e4])
    assert torch.isfinite(discriminator_loss(extreme, extreme, extreme))
    assert torch.isfinite(generator_loss(extreme))


def test_label_loss_is_the_cross_entropy_of_each_attribute() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, 1.0, 1.0]])  # attributes of 2 and 3 values
    expected = -log_sigmoid(2.0) + math.log(3)
    assert label_loss(logits, torch.tensor([[0, 2]]), [2, 3]).item() == pytest.approx(expected)


def test_label_loss_pushes_towards_the_asked_label() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    label_loss(logits, torch.tensor([[1]]), [3]).backward()
    assert logits.grad is not None
    assert logits.grad[0].sign().tolist() == [1, -1, 1]
