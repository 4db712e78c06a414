from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from training.data import Dataset, clustered, load
from training.errors import DataError


def kinds(side: int = 16) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """120 noisy images of four kinds, and the kind of each."""
    random = np.random.default_rng(0)
    kind = random.integers(4, size=120)
    images = random.integers(0, 40, size=(120, side, side, 3))
    images[..., 0] += 150 * (kind % 2)[:, None, None]
    images[:, : side // 2] += 150 * (kind // 2)[:, None, None, None]
    return images.clip(0, 255).astype(np.uint8), kind


def unlabelled(images: npt.NDArray[np.uint8]) -> Dataset:
    return Dataset("x", images, np.zeros((len(images), 0), np.int64), ())


@pytest.mark.parametrize("side", [16, 28])
def test_groups_are_the_kinds_of_images(side: int) -> None:
    images, kind = kinds(side)
    found = clustered(unlabelled(images), 4)
    pairs = {(int(a), int(b)) for a, b in zip(kind, found.labels[:, 0], strict=True)}
    assert len(pairs) == 4
    (group,) = found.attributes
    assert group.frequencies == tuple(np.bincount(found.labels[:, 0]) / 120)
    assert (found.images == images).all()


def test_mirrored_image_is_in_the_same_group(portraits: Dataset) -> None:
    both = np.concatenate([portraits.images, portraits.images[:, :, ::-1]])
    labels = clustered(unlabelled(both), 20).labels[:, 0]
    assert (labels[: len(portraits)] == labels[len(portraits) :]).all()
    assert len(set(labels.tolist())) > 15


def test_groups_are_a_function_of_the_images(portraits: Dataset) -> None:
    bare = replace(portraits, labels=portraits.labels[:, :0], attributes=())
    assert clustered(portraits, 8).sha256 == clustered(bare, 8).sha256
    assert load("avatars:200", (), clusters=5).sha256 == load("avatars:200", clusters=5).sha256


def test_equal_images_have_no_groups() -> None:
    with pytest.raises(DataError, match="its images look alike"):
        clustered(unlabelled(np.full((40, 16, 16, 1), 7, np.uint8)), 10)


def test_too_many_groups_are_rejected(portraits: Dataset) -> None:
    with pytest.raises(DataError, match="600 images are too few for 301 groups"):
        clustered(portraits, 301)
