"""Reading of data whose size and labels are not known yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import click

from training.config import TrainingConfig
from training.core.device import choose_device
from training.data import Dataset, load
from training.errors import FixedSize, Unlabelled
from training.pipeline.choices import nearest_size

LARGEST = {"cpu": 64, "cuda": 128}
"""Largest side that is chosen, in pixels, by device: twice the side takes four times as long."""
MIN_PER_VALUE = 10
"""An attribute with fewer images of each value, on average, names images rather than kinds."""


def read(given: TrainingConfig, fixed: Mapping[str, Any]) -> tuple[Dataset, dict[str, Any]]:
    """Load the data of ``given``; return it with the options of reading that were chosen.

    ``fixed`` holds the options that the user set, which stay. Raises ``DataError``.
    """
    chosen: dict[str, Any] = {}

    def attempt() -> Dataset:
        config = given.model_copy(update=chosen)
        return load(config.data, **config.reading)

    largest = LARGEST[choose_device(given.device).type]
    if not fixed.keys() & {"size", "crop"}:
        chosen["size"] = largest
    dataset = _with_fallbacks(attempt, chosen, fixed)
    if chosen.get("size") and (side := native_side(dataset)) is not None:
        size = nearest_size(min(side, largest))
        if size != chosen["size"]:
            chosen["size"] = size
            dataset = attempt()
    if not fixed.keys() & {"attributes", "unconditional"}:
        names = learnable(dataset)
        if len(names) < len(dataset.attributes):
            left = [each.name for each in dataset.attributes if each.name not in names]
            click.echo(
                f"left out, with fewer than {MIN_PER_VALUE} images for each value: "
                f"{', '.join(left)}"
            )
            chosen["attributes"] = names
            dataset = attempt()
    return dataset, chosen


def _with_fallbacks(
    attempt: Callable[[], Dataset], chosen: dict[str, Any], fixed: Mapping[str, Any]
) -> Dataset:
    """Load without a size if the data cannot be resized, and without labels if it has none."""
    while True:
        try:
            return attempt()
        except FixedSize:
            if "size" not in chosen:
                raise
            del chosen["size"]
        except Unlabelled as error:
            if fixed.keys() & {"attributes", "unconditional"} or "unconditional" in chosen:
                raise
            click.echo(f"no labels: {error.problems[0].partition(';')[0]}")
            chosen["unconditional"] = True


def native_side(dataset: Dataset) -> float | None:
    """Median of the smaller sides of the images as they are in their files; None if drawn."""
    sides = dataset.reading.sides if dataset.reading is not None else []
    return median(sides) if sides else None


def learnable(dataset: Dataset) -> tuple[str, ...]:
    """Names of the attributes whose values have enough images each."""
    return tuple(
        attribute.name
        for attribute in dataset.attributes
        if len(dataset) / len(attribute.values) >= MIN_PER_VALUE
    )
