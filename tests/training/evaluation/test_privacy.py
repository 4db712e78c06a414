from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from service.core.manifest import Attribute
from training.data import Dataset
from training.evaluation.images import Images
from training.evaluation.privacy import Privacy, auc, found_at, privacy

COLOUR = Attribute(name="colour", values=("red", "blue"), frequencies=(0.5, 0.5))


def noise(count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Dataset("noise", images, rng.integers(0, 2, (count, 1)), (COLOUR,))


TRAINED, HELD_OUT = noise(1000, 1), noise(300, 2)


def images_of(data: Dataset) -> Images:
    return Images(torch.from_numpy(data.images), torch.from_numpy(data.labels))


def measured(samples: Dataset, fetched: Dataset) -> Privacy:
    pixels: Tensor = images_of(fetched).pixels
    return privacy(TRAINED, HELD_OUT, images_of(samples), pixels, None)


def test_new_samples_are_as_near_to_held_out_images() -> None:
    found = measured(noise(300, 3), noise(2000, 4))
    for each in (found.samples, found.held_out):
        assert each.nearer.low < 0.5 < each.nearer.high
        assert each.ratio > 0.9 and each.low_ratio > 0.8
    (attack,) = found.attacks
    assert attack.auc.low < 0.5 < attack.auc.high
    assert attack.found.low <= 0.01 and not attack.alarming


@pytest.mark.parametrize("mirrored", [False, True])
def test_copies_are_nearer_and_betray_their_originals(mirrored: bool) -> None:
    copies = TRAINED.take(np.arange(1000) < 1000)
    pixels = copies.images[:, :, ::-1].copy() if mirrored else copies.images
    copied = Dataset("copies", pixels, copies.labels, copies.attributes)
    found = measured(copied, copied)
    assert found.samples.low_ratio < 0.01 and found.samples.ratio < 0.01
    assert found.samples.nearer.low > 0.5
    assert found.held_out.nearer.low < 0.5 < found.held_out.nearer.high
    (attack,) = found.attacks
    assert attack.auc.value == 1 and attack.found.value == 1 and attack.alarming


def test_few_copies_raise_the_alarm_though_the_auc_stays_low() -> None:
    copied = TRAINED.take(np.arange(1000) < 100)
    found = measured(noise(300, 3), Dataset("", copied.images, copied.labels, (COLOUR,)))
    (attack,) = found.attacks
    assert attack.auc.value < 0.65
    assert attack.found.value == pytest.approx(0.1, abs=0.06) and attack.alarming


def test_rates_are_those_of_the_definition() -> None:
    members, others = np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 2, 9])
    pairs = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    assert auc(members, others) == pytest.approx(sum(pairs) / 16)
    others = np.arange(200.0)  # two of them are above 197
    assert found_at(np.array([197.0, 197.5, 198, 300]), others) == 0.75
