from __future__ import annotations

import pytest
import torch

from training.networks.adaptive import IMAGES, AdaptiveProbability


def test_probability_rises_while_the_discriminator_knows_its_images_and_then_falls() -> None:
    adaptive = AdaptiveProbability(target=0.6, largest=0.8)
    knows, guesses = torch.ones(10), torch.tensor([1.0] * 7 + [-1.0] * 3)  # signs of 1 and 0.4
    adaptive.follow(knows, 100)
    assert adaptive.value.item() == pytest.approx(100 / IMAGES)
    for _ in range(IMAGES // 100):
        adaptive.follow(knows, 100)
    assert adaptive.value.item() == pytest.approx(0.8)
    adaptive.follow(guesses, 20_000)
    assert adaptive.value.item() == pytest.approx(0.6)
    adaptive.follow(guesses, 20 * IMAGES)
    assert adaptive.value == 0
