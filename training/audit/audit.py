"""What is wrong with labelled images: copies, contradictions, classes too small to be learnt.

Pure: ``audit_report`` tells it to people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.audit import near_duplicates
from training.audit.near_duplicates import Pair
from training.data import Dataset
from training.errors import DataError

FEW = 50
"""A value with fewer images than this is hardly learnt."""
MOST_COMBINATIONS = 100_000
"""Of more, those that never occur are counted but not listed."""
LISTED = 20


@dataclass(frozen=True)
class Labelled:
    """How many images have these values."""

    values: dict[str, str]
    images: int


@dataclass(frozen=True)
class Cheap:
    """What is found in a time that grows with the number of images."""

    counts: tuple[Labelled, ...]
    """Of every value of every attribute."""
    duplicates: tuple[Pair, ...]
    """Every image that is the same as one before it."""
    mirrored: tuple[Pair, ...]
    """Every image that mirrors one before it."""
    conflicts: tuple[Pair, ...]
    """Those of ``duplicates`` whose labels differ."""

    @property
    def few(self) -> tuple[Labelled, ...]:
        return tuple(count for count in self.counts if count.images < FEW)


@dataclass(frozen=True)
class Combinations:
    """The values of all attributes taken together."""

    possible: int
    occurring: int
    few: int
    """How many have fewer images than ``FEW``; those that never occur are among them."""
    rarest: tuple[Labelled, ...]
    """Some of these, fewest images first; of what never occurs only where not too much could."""


@dataclass(frozen=True)
class Report:
    cheap: Cheap
    combinations: Combinations | None
    """None where there are fewer than two attributes."""
    near: tuple[Pair, ...]
    """Every image that is almost one before it, most similar first."""
    leaks: tuple[Pair, ...] | None
    """Every image of the other data that is in this, mirrored or nearly; None without other data.

    ``first`` is an index into this data, ``second`` one into the other.
    """


def cheap(dataset: Dataset) -> Cheap:
    pairs = near_duplicates.exact(dataset.images)
    duplicates = tuple(pair for pair in pairs if not pair.mirrored)
    return Cheap(
        counts=_counts(dataset),
        duplicates=duplicates,
        mirrored=tuple(pair for pair in pairs if pair.mirrored),
        conflicts=tuple(
            pair
            for pair in duplicates
            if (dataset.labels[pair.first] != dataset.labels[pair.second]).any()
        ),
    )


def audit(dataset: Dataset, other: Dataset | None = None) -> Report:
    """Look at ``dataset``, and for its images in ``other``, such as data held out for measuring.

    Takes a time that grows with the square of the number of images: a second for 15,000. Raises
    ``DataError`` where the images of ``other`` have another shape.
    """
    leaks = None
    if other is not None:
        if other.images.shape[1:] != dataset.images.shape[1:]:
            raise DataError(
                other.name,
                [
                    f"has images of {shape(other)}, {dataset.name} of {shape(dataset)}: they "
                    "cannot be compared (--size gives images one size)"
                ],
            )
        same = near_duplicates.exact(dataset.images, other.images)
        known = {pair.second for pair in same}
        almost = near_duplicates.near(dataset.images, other.images)
        leaks = (*same, *(pair for pair in almost if pair.second not in known))
    return Report(
        cheap=cheap(dataset),
        combinations=_combinations(dataset),
        near=tuple(near_duplicates.near(dataset.images)),
        leaks=leaks,
    )


def warnings(found: Cheap, source: str) -> list[str]:
    """What ``found`` should tell someone who is about to train, in a sentence or two."""
    lines = []
    counts = {
        "repeat another": len(found.duplicates),
        "mirror another": len(found.mirrored),
        "are one picture under different labels": len(found.conflicts),
    }
    told = [f"{count} {what}" for what, count in counts.items() if count]
    if told:
        lines.append(
            f"of the images, {', '.join(told)}: `python -m training audit {source}` names them"
        )
    if found.few:
        few = [f"{phrase(count.values)} ({count.images})" for count in found.few]
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        lines.append(f"fewer than {FEW} images, hardly learnt: {', '.join(few[:5])}{more}")
    return lines


def phrase(values: dict[str, str]) -> str:
    """``hair red, eyes blue``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def shape(dataset: Dataset) -> str:
    """``64x64 RGB``."""
    height, width, channels = dataset.images.shape[1:]
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def _counts(dataset: Dataset) -> tuple[Labelled, ...]:
    return tuple(
        Labelled({attribute.name: value}, int((column == index).sum()))
        for attribute, column in zip(dataset.attributes, dataset.labels.T, strict=True)
        for index, value in enumerate(attribute.values)
    )


def _combinations(dataset: Dataset) -> Combinations | None:
    if len(dataset.attributes) < 2:
        return None
    sizes = [len(attribute.values) for attribute in dataset.attributes]
    possible = math.prod(sizes)
    rows, counts = np.unique(dataset.labels, axis=0, return_counts=True)
    occurring, common = len(rows), int((counts >= FEW).sum())
    if possible <= MOST_COMBINATIONS:
        at = np.ravel_multi_index(tuple(dataset.labels.T), sizes)
        counts = np.bincount(at, minlength=possible)
        rows = np.stack(np.unravel_index(np.arange(possible), sizes), axis=1)
    rarest = tuple(
        Labelled(
            {x.name: x.values[v] for x, v in zip(dataset.attributes, rows[at], strict=True)},
            int(counts[at]),
        )
        for at in np.argsort(counts, kind="stable")[:LISTED]
        if counts[at] < FEW
    )
    return Combinations(possible, occurring, possible - common, rarest)
