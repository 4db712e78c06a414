"""Limits of a build are said before it trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.small_runs import some
from tests.training.pipeline.test_choices import chosen, dataset
from training.audit.audit import quick_audit
from training.data import Dataset
from training.errors import DataError
from training.pipeline import outlook
from training.pipeline.outlook import aligned


def said(data: Dataset, *, speed: float = 1000, native_side: float | None = None) -> str:
    choice = chosen(data, speed=speed)
    return "\n".join(outlook.outlook(data, choice, 20, native_side))


def test_too_few_images_to_measure_with_are_announced() -> None:
    text = said(dataset(90))
    assert "30 held-out images are too few (below 32)" in text
    assert "no evaluation" in text


def test_error_of_few_images_is_announced_with_the_number_that_would_help() -> None:
    text = said(dataset(900))
    assert "100 are held out" in text
    assert "known to ±10%" in text
    assert "3,900 images would make it ±5%" in text
    assert "few images" not in said(dataset(4000, side=16))


def test_images_unlike_each_other_are_announced(portraits: Dataset) -> None:
    noise = np.random.default_rng(0).integers(0, 256, portraits.images.shape, dtype=np.uint8)
    assert aligned(portraits) > 0.3
    assert aligned(replace(portraits, images=noise)) < 0.01
    assert "unlike each other" not in said(portraits)
    assert "their mean explains 0%" in said(replace(portraits, images=noise))


def test_small_and_large_images_are_announced() -> None:
    data = dataset(1000)
    assert "most are 24 pixels a side, and are enlarged to 64" in said(data, native_side=24)
    assert "small images" not in said(data, native_side=64)
    assert "--size 256 is more than a DCGAN draws well" in said(dataset(100, side=256))


def test_rare_labels_are_named() -> None:
    data = dataset(1000, "cat", "dog", "owl")
    labels = np.repeat([0, 1, 2], [900, 60, 40])[:, None]
    text = said(replace(data, labels=labels))
    assert "beside cat (900), expect poor images of dog (60)" in text
    assert "owl" not in text  # below 50 images: the audit says so


def test_slow_machine_says_what_is_reached_instead() -> None:
    text = said(dataset(1000), speed=10)
    assert "too slow for 20 minutes: 40 images/s give 29 kimg" in text
    assert "usually take 172 (72 minutes)" in text
    assert "too slow" not in said(dataset(1000), speed=300)


def test_remedy_depends_on_the_length_of_the_run() -> None:
    assert "13 of about 249 kimg" in outlook.remedy(2288, 13)
    assert "more images, of one kind" in outlook.remedy(2288, 200)


def test_copies_of_a_few_images_are_rejected(portraits: Dataset) -> None:
    few = some(portraits, 90)
    copies = replace(
        few,
        images=np.concatenate([few.images] * 3),
        labels=np.concatenate([few.labels] * 3),
        names=None,
    )
    with pytest.raises(DataError, match="90 different images are too few"):
        outlook.check(copies, quick_audit(copies))
    outlook.check(portraits, quick_audit(portraits))


def test_images_under_two_labels_are_rejected(portraits: Dataset) -> None:
    other = (portraits.labels + 1) % [len(each.values) for each in portraits.attributes]
    twice = replace(
        portraits,
        images=np.concatenate([portraits.images] * 2),
        labels=np.concatenate([portraits.labels, other]),
        names=None,
    )
    with pytest.raises(DataError, match="again under another label"):
        outlook.check(twice, quick_audit(twice))
