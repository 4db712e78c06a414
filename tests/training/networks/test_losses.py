from __future__ import annotations

import math

import pytest
import torch

from training.networks.losses import LOSSES, label_loss, matching_aware


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


REAL, FAKE = [-2.0, 0.0, 3.0], [1.0, 2.0, -1.0]
BY_HAND = {
    "non-saturating": (
        mean([-log_sigmoid(x) for x in REAL]) + mean([-log_sigmoid(-x) for x in FAKE]),
        mean([-log_sigmoid(x) for x in FAKE]),
    ),
    "hinge": (mean([3, 1, 0]) + mean([2, 3, 0]), -mean(FAKE)),
    "least-squares": ((mean([9, 1, 4]) + mean([1, 4, 1])) / 2, mean([0, 1, 4]) / 2),
    "wgan-gp": (mean(FAKE) - mean(REAL), -mean(FAKE)),
    "relativistic": (
        mean([-log_sigmoid(x) for x in (-3.0, -2.0, 4.0)]),  # pairs: real minus generated
        mean([-log_sigmoid(-x) for x in (-3.0, -2.0, 4.0)]),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_their_formulas(name: str) -> None:
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    found = LOSSES[name].discriminator(real, fake), LOSSES[name].generator(real, fake)
    assert [value.item() for value in found] == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_have_the_right_sign(name: str) -> None:
    loss = LOSSES[name]
    real, fake, wrong, judged = (torch.full((1,), 0.5, requires_grad=True) for _ in range(4))
    matching_aware(loss, real, fake, wrong, 0.5).backward()
    assert real.grad is not None and real.grad.item() < 0
    assert fake.grad is not None and fake.grad.item() > 0
    assert wrong.grad is not None and wrong.grad.item() > 0
    loss.generator(real.detach(), judged).backward()
    assert judged.grad is not None and judged.grad.item() < 0


def test_mismatched_and_generated_weights_sum_to_one() -> None:
    """Reed et al. 2016, algorithm 1: log(real) + (log(1 - wrong) + log(1 - generated)) / 2."""
    real, fake, wrong = (torch.tensor([x]) for x in (0.5, -1.5, 2.5))
    expected = -log_sigmoid(0.5) - (log_sigmoid(1.5) + log_sigmoid(-2.5)) / 2
    loss = LOSSES["non-saturating"]
    assert matching_aware(loss, real, fake, wrong, 0.5).item() == pytest.approx(expected)
    assert matching_aware(loss, real, fake, None, 0.5) == loss.discriminator(real, fake)


@pytest.mark.parametrize("name", ["non-saturating", "relativistic"])
def test_extreme_logits_stay_finite(name: str) -> None:
    extreme = torch.tensor([-1e4, 1e4])
    assert torch.isfinite(LOSSES[name].discriminator(extreme, -extreme))
    assert torch.isfinite(LOSSES[name].generator(extreme, -extreme))


def test_label_loss_is_the_cross_entropy_of_each_attribute() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, 1.0, 1.0]] * 2)  # attributes of 2 and 3 values
    labels, known = torch.tensor([[0, 2]] * 2), torch.ones(2, 2, dtype=torch.bool)
    expected = -log_sigmoid(2.0) + math.log(3)
    assert label_loss(logits, labels, known, [2, 3]).item() == pytest.approx(expected)
    known[0, 0] = known[0, 1] = False  # open labels do not count
    assert label_loss(logits, labels, known, [2, 3]).item() == pytest.approx(expected / 2)


def test_label_loss_increases_the_logit_of_the_right_label() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    label_loss(logits, torch.tensor([[1]]), torch.ones(1, 1, dtype=torch.bool), [3]).backward()
    assert logits.grad is not None
    assert logits.grad[0].sign().tolist() == [1, -1, 1]
