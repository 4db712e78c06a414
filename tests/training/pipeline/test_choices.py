"""Choices follow from the data and the speed of the machine, and the user's options stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.core.manifest import Attribute
from training.config import TrainingConfig
from training.data import Dataset
from training.pipeline.choices import Choice, choose, length, nearest_size, useful_kimg


def dataset(count: int, *values: str, side: int = 64, channels: int = 3) -> Dataset:
    """Different images, with an attribute ``kind`` of ``values``, evenly."""
    attributes: tuple[Attribute, ...] = ()
    labels = np.zeros((count, 0), dtype=np.int64)
    if values:
        shares = tuple(1 / len(values) for _ in values)
        attributes = (Attribute(name="kind", values=values, frequencies=shares),)
        labels = (np.arange(count) % len(values))[:, None]
    images = np.zeros((count, side, side, channels), dtype=np.uint8)
    images[:, 0, :2, 0] = np.stack(np.divmod(np.arange(count), 256), axis=1)
    return Dataset("some", images, labels, attributes)


def chosen(
    data: Dataset,
    *,
    speed: float,
    minutes: float = 20,
    preset: str | None = None,
    **fixed: Any,
) -> Choice:
    """Choice on a machine that trains ``speed`` images per second at width 32."""
    given = TrainingConfig.model_validate({"data": "-", "name": "some"} | fixed)
    known = {name: getattr(given, name) for name in fixed}
    return choose(given, known, preset, data, minutes, lambda c: speed * (32 / c.width) ** 2)


def test_faster_machine_gets_a_wider_network() -> None:
    widths = [chosen(dataset(1000), speed=speed).config.width for speed in (20, 100, 300, 5000)]
    assert widths == [16, 16, 32, 64]


def test_run_fits_into_its_share_of_the_minutes() -> None:
    for speed in (20, 100, 300):
        choice = chosen(dataset(1000), speed=speed)
        assert choice.config.kimg * 1000 / choice.rate == pytest.approx(20 * 60 * 0.6, rel=0.05)


def test_run_is_not_longer_than_the_images_are_worth() -> None:
    assert chosen(dataset(300), speed=100_000).config.kimg == 300


def test_more_images_get_a_longer_run() -> None:
    assert [round(useful_kimg(count)) for count in (300, 1000, 15_700)] == [100, 172, 594]
    assert length(10, useful_kimg(300), 64) == 0.064  # one step at least


@pytest.mark.parametrize(
    ("data", "preset", "mirror"),
    [
        (dataset(1000, "cat", "dog"), "faces", True),
        (dataset(1000), "faces", True),
        (dataset(999, "cat", "dog"), "small", False),
        (dataset(500, *"0123456789"), "digits", False),
        (dataset(500, "left shoe", "right shoe"), "digits", False),
        (dataset(500, side=28, channels=1), "digits", False),
    ],
    ids=["classes", "no labels", "few images", "characters", "sides", "small and grey"],
)
def test_preset_follows_from_images_and_labels(data: Dataset, preset: str, mirror: bool) -> None:
    choice = chosen(data, speed=100)
    assert (choice.preset, choice.config.mirror) == (preset, mirror)


def test_options_of_the_user_stay() -> None:
    fixed: dict[str, Any] = {"width": 8, "kimg": 7.0, "mirror": False, "batch": 16}
    config = chosen(dataset(1000), speed=100, **fixed).config
    assert {name: getattr(config, name) for name in fixed} == fixed
    assert config.snapshot_kimg < config.patience_kimg < config.kimg
    assert chosen(dataset(1000), speed=100, preset="digits").config.augment == ("translation",)


def test_many_images_are_not_augmented() -> None:
    data = dataset(30_001, side=4)
    assert chosen(data, speed=100).config.augment == ()
    assert chosen(data, speed=100, augment="cutout").config.augment == ("cutout",)


def test_size_is_the_nearest_that_can_be_drawn() -> None:
    sides = (10, 20, 24, 28, 40, 50, 63, 96, 500)
    assert [nearest_size(side) for side in sides] == [16, 16, 28, 28, 32, 48, 64, 64, 128]
