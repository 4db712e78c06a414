from __future__ import annotations

import pytest
import torch

from training.networks.lecam import LeCam


def test_penalty_is_zero_unless_a_logit_is_on_its_side_of_the_other_average() -> None:
    lecam = LeCam()
    lecam.real.fill_(1.0)
    lecam.fake.fill_(-1.0)
    # Averages move by a hundredth of the distance.
    assert lecam(torch.tensor([-1.5, -2.0]), torch.tensor([1.5, 2.0])) == 0
    lecam.real.fill_(1.0)
    lecam.fake.fill_(-1.0)
    found = lecam(torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -2.0])).item()
    fake = -1.0 - 0.005
    assert found == pytest.approx((1 - fake) ** 2 + (2**2 + 3**2) / 2, rel=1e-4)


def test_averages_follow_the_logits() -> None:
    lecam = LeCam()
    for _ in range(1000):
        lecam(torch.full((4,), 3.0), torch.tensor([-1.0, -3.0]))
    assert lecam.real.item() == pytest.approx(3, rel=1e-3)
    assert lecam.fake.item() == pytest.approx(-2, rel=1e-3)


def test_gradient_draws_the_logits_together() -> None:
    lecam = LeCam()
    real, fake = torch.tensor([2.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    lecam(real, fake).backward()
    assert real.grad is not None and real.grad > 0
    assert fake.grad is not None and fake.grad < 0
