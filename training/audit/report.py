"""An audit as text, as JSON, and as a picture of the worst pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from training.audit.audit import FEW, Combinations, Report, phrase
from training.audit.near_duplicates import Pair
from training.data import Dataset, summary
from training.plots import grids

WORST = 5
"""Pairs of each kind that are listed and shown."""
SCALE = 2


def as_text(report: Report, dataset: Dataset, other: Dataset | None = None) -> str:
    """Summary in lines, with the first pairs of each kind."""
    lines = summary(dataset)
    if report.combinations is not None:
        lines.append(_combinations(report.combinations))
    for kind, pairs, seconds in _kinds(report, dataset, other):
        title = kind if seconds is dataset else f"also in {seconds.name}"
        lines.append(f"{title}: {len(pairs) or 'none'}")
        lines += [f"  {_pair(kind, pair, dataset, seconds)}" for pair in pairs[:WORST]]
        if len(pairs) > WORST:
            lines.append("  ...")
    return "\n".join(lines)


def as_json(report: Report, dataset: Dataset, other: Dataset | None = None) -> dict[str, Any]:
    """Full report as JSON; an image is given by its name, or by its index without names."""
    height, width, channels = dataset.images.shape[1:]
    counts: dict[str, dict[str, int]] = {}
    for count in report.quick.counts:
        for name, value in count.values.items():
            counts.setdefault(name, {})[value] = count.images
    combinations = report.combinations
    return {
        "data": dataset.name,
        "sha256": dataset.sha256,
        "images": len(dataset),
        "image": {"height": height, "width": width, "channels": channels},
        "counts": counts,
        "combinations": combinations
        and vars(combinations) | {"rarest": [vars(each) for each in combinations.rarest]},
        "against": other and {"data": other.name, "sha256": other.sha256, "images": len(other)},
        "pairs": {
            kind: [
                vars(pair)
                | {"first": dataset.title(pair.first), "second": seconds.title(pair.second)}
                for pair in pairs
            ]
            for kind, pairs, seconds in _kinds(report, dataset, other)
        },
    }


def as_picture(report: Report, dataset: Dataset, other: Dataset | None = None) -> bytes | None:
    """PNG with a row for each of the worst pairs; None without pairs."""
    images, captions = [], []
    for kind, pairs, seconds in _kinds(report, dataset, other):
        for pair in pairs[:WORST]:
            images += [dataset.images[pair.first], seconds.images[pair.second]]
            captions.append(kind.removesuffix("s").removesuffix(" duplicate"))
    return grids.captioned_rows(np.stack(images), captions, SCALE) if images else None


def _kinds(
    report: Report, dataset: Dataset, other: Dataset | None
) -> Iterator[tuple[str, tuple[Pair, ...], Dataset]]:
    """Yield each kind of finding, its pairs, and the data of the second image of a pair."""
    yield "duplicates", report.quick.duplicates, dataset
    yield "mirrored duplicates", report.quick.mirrored, dataset
    yield "near duplicates", report.near, dataset
    yield "label conflicts", report.quick.conflicts, dataset
    if report.leaks is not None and other is not None:
        yield "leaks", report.leaks, other


def _combinations(found: Combinations) -> str:
    line = f"combinations: {found.occurring:,} of {found.possible:,} occur"
    if found.few:
        rarest = [f"{phrase(each.values)} ({each.images})" for each in found.rarest[:WORST]]
        line += f"; {found.few:,} below {FEW} images: {'; '.join(rarest)}"
        line += "; ..." if found.few > len(rarest) else ""
    return line


def _pair(kind: str, pair: Pair, dataset: Dataset, seconds: Dataset) -> str:
    first, second = dataset.title(pair.first), seconds.title(pair.second)
    line = f"{first} {'~' if pair.distance else '='} {second}"
    if pair.mirrored:
        line += ", mirrored"
    if pair.distance:
        line += f", {pair.distance:.1f} of 255 apart"
    if kind == "label conflicts":
        one, other = dataset.labels[[pair.first, pair.second]]
        line += ": " + ", ".join(
            f"{attribute.name} {attribute.values[a]} or {attribute.values[b]}"
            for attribute, a, b in zip(dataset.attributes, one, other, strict=True)
            if a != b
        )
    return line
