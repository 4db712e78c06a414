"""Audit of labelled images: copies, contradicting labels, classes too small to learn.

Pure. ``report`` writes the result.
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
"""A model hardly learns a value with fewer images than this."""
MAX_COMBINATIONS = 100_000
"""Above this, combinations that never occur are counted but not listed."""
MAX_LISTED = 20
"""Rare combinations in a report."""


@dataclass(frozen=True)
class ValueCount:
    """Number of images with the given values."""

    values: dict[str, str]
    images: int


@dataclass(frozen=True)
class QuickReport:
    """Findings whose time grows with the number of images only."""

    counts: tuple[ValueCount, ...]
    """One for every value of every attribute."""
    duplicates: tuple[Pair, ...]
    """Images that equal an earlier one."""
    mirrored: tuple[Pair, ...]
    """Images that mirror an earlier one."""
    conflicts: tuple[Pair, ...]
    """Pairs of ``duplicates`` whose labels differ."""

    @property
    def few(self) -> tuple[ValueCount, ...]:
        """Values with fewer images than ``FEW``."""
        return tuple(count for count in self.counts if count.images < FEW)


@dataclass(frozen=True)
class Combinations:
    """Combinations of the values of all attributes."""

    possible: int
    occurring: int
    few: int
    """Combinations with fewer images than ``FEW``, those that never occur included."""
    rarest: tuple[ValueCount, ...]
    """The first 20 of these, fewest images first.

    Those that never occur are left out if more than ``MAX_COMBINATIONS`` are possible.
    """


@dataclass(frozen=True)
class Report:
    """Findings of an audit."""

    quick: QuickReport
    combinations: Combinations | None
    """None for fewer than two attributes."""
    near: tuple[Pair, ...]
    """Images that nearly equal an earlier one, most similar first."""
    leaks: tuple[Pair, ...] | None
    """Images of the other data that are in this data, also mirrored or nearly; None without it.

    ``first`` is an index into this data, ``second`` one into the other.
    """


def quick_audit(dataset: Dataset) -> QuickReport:
    """Count values and find exact copies; time grows with the number of images."""
    pairs = near_duplicates.exact(dataset.images)
    duplicates = tuple(pair for pair in pairs if not pair.mirrored)
    return QuickReport(
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
    """Audit ``dataset``, and search ``other``, such as held-out data, for its images.

    Time grows with the square of the number of images: a second for 15,000. Raises ``DataError`` if
    the images of ``other`` have another shape.
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
        quick=quick_audit(dataset),
        combinations=_combinations(dataset),
        near=tuple(near_duplicates.near(dataset.images)),
        leaks=leaks,
    )


def warnings(report: QuickReport, source: str) -> list[str]:
    """Warnings before a training on ``source``, at most two sentences."""
    lines = []
    counts = {
        "repeat another": len(report.duplicates),
        "mirror another": len(report.mirrored),
        "are one picture under different labels": len(report.conflicts),
    }
    copies = [f"{count} {verb}" for verb, count in counts.items() if count]
    if copies:
        lines.append(f"of the images, {', '.join(copies)}: `figment audit {source}` lists them")
    if report.few:
        few = [f"{phrase(count.values)} ({count.images})" for count in report.few]
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        lines.append(
            f"values with fewer than {FEW} images, which a model hardly learns: "
            f"{', '.join(few[:5])}{more}"
        )
    return lines


def phrase(values: dict[str, str]) -> str:
    """Values as text, such as ``hair red, eyes blue``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def shape(dataset: Dataset) -> str:
    """Width, height and colours as text, such as ``64x64 RGB``."""
    height, width, channels = dataset.images.shape[1:]
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def _counts(dataset: Dataset) -> tuple[ValueCount, ...]:
    return tuple(
        ValueCount({attribute.name: value}, int((column == index).sum()))
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
    if possible <= MAX_COMBINATIONS:
        at = np.ravel_multi_index(tuple(dataset.labels.T), sizes)
        counts = np.bincount(at, minlength=possible)
        rows = np.stack(np.unravel_index(np.arange(possible), sizes), axis=1)
    rarest = tuple(
        ValueCount(
            {x.name: x.values[v] for x, v in zip(dataset.attributes, rows[at], strict=True)},
            int(counts[at]),
        )
        for at in np.argsort(counts, kind="stable")[:MAX_LISTED]
        if counts[at] < FEW
    )
    return Combinations(possible, occurring, possible - common, rarest)
