"""Detection of copied training images among the samples of a snapshot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.small_runs import CPU
from training.data import Dataset
from training.evaluation.copying import CopyCheck


@pytest.fixture(scope="module")
def parts(portraits: Dataset) -> tuple[Dataset, Dataset, Dataset]:
    """300 training images, 150 held out, and 150 new ones."""
    order = np.random.default_rng(1).permutation(len(portraits))
    mixed = replace(portraits, images=portraits.images[order], labels=portraits.labels[order])
    number = np.arange(len(portraits))
    return (
        mixed.take(number < 300),
        mixed.take((number >= 300) & (number < 450)),
        mixed.take(number >= 450),
    )


def test_copies_are_found_and_new_images_are_not(
    parts: tuple[Dataset, Dataset, Dataset],
) -> None:
    trained, held_out, new = (torch.from_numpy(each.images) for each in parts)
    check = CopyCheck(parts[0], parts[1], CPU)
    assert check.share(new) == 0
    assert check.share(trained[:150]) > 0.4
    nearly = (trained[:150].float() + 4 * torch.randn(trained[:150].shape)).clamp(0, 255)
    assert check.share(nearly.to(torch.uint8)) > 0.4
    assert check.share(held_out) == 0


def test_one_repeated_picture_is_a_collapse_and_no_copying(
    parts: tuple[Dataset, Dataset, Dataset],
) -> None:
    trained = torch.from_numpy(parts[0].images)
    assert CopyCheck(parts[0], parts[1], CPU).share(trained[:1].expand(150, -1, -1, -1)) == 0
