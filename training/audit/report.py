"""An audit as people and programs read it: text, JSON, and a picture of the worst pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from training.audit.audit import FEW, Combinations, Report, phrase
from training.audit.near_duplicates import Pair
from training.data import Dataset, summary
from training.plots import grids

WORST = 5
SCALE = 2


def as_text(report: Report, dataset: Dataset, other: Dataset | None = None) -> str:
    lines = summary(dataset)
    if report.combinations is not None:
        lines.append(_combinations(report.combinations))
    for what, pairs, seconds in _kinds(report, dataset, other):
        title = what if seconds is dataset else f"also in {seconds.name}"
        lines.append(f"{title}: {len(pairs) or 'none'}")
        lines += [f"  {_pair(what, pair, dataset, seconds)}" for pair in pairs[:WORST]]
        if len(pairs) > WORST:
            lines.append("  ...")
    return "\n".join(lines)


def as_json(report: Report, dataset: Dataset, other: Dataset | None = None) -> dict[str, Any]:
    """All of it; images are told by their names, or by their indices where they have none."""
    height, width, channels = dataset.images.shape[1:]
    counts: dict[str, dict[str, int]] = {}
    for count in report.cheap.counts:
        for name, value in count.values.items():
            counts.setdefault(name, {})[value] = count.images
    found = report.combinations
    return {
        "data": dataset.name,
        "sha256": dataset.sha256,
        "images": len(dataset),
        "image": {"height": height, "width": width, "channels": channels},
        "counts": counts,
        "combinations": found and vars(found) | {"rarest": [vars(each) for each in found.rarest]},
        "against": other and {"data": other.name, "sha256": other.sha256, "images": len(other)},
        "pairs": {
            what: [
                vars(pair)
                | {"first": dataset.title(pair.first), "second": seconds.title(pair.second)}
                for pair in pairs
            ]
            for what, pairs, seconds in _kinds(report, dataset, other)
        },
    }


def as_picture(report: Report, dataset: Dataset, other: Dataset | None = None) -> bytes | None:
    """PNG with the two images of the worst pairs in a row each; None where there are none."""
    images, captions = [], []
    for what, pairs, seconds in _kinds(report, dataset, other):
        for pair in pairs[:WORST]:
            images += [dataset.images[pair.first], seconds.images[pair.second]]
            captions.append(what.removesuffix("s").removesuffix(" duplicate"))
    return grids.captioned_rows(np.stack(images), captions, SCALE) if images else None


def _kinds(
    report: Report, dataset: Dataset, other: Dataset | None
) -> Iterator[tuple[str, tuple[Pair, ...], Dataset]]:
    """What is the matter, the pairs with which it is, and the data of the second of each."""
    yield "duplicates", report.cheap.duplicates, dataset
    yield "mirrored duplicates", report.cheap.mirrored, dataset
    yield "near duplicates", report.near, dataset
    yield "label conflicts", report.cheap.conflicts, dataset
    if report.leaks is not None and other is not None:
        yield "leaks", report.leaks, other


def _combinations(found: Combinations) -> str:
    line = f"combinations: {found.occurring:,} of {found.possible:,} occur"
    if found.few:
        rarest = [f"{phrase(each.values)} ({each.images})" for each in found.rarest[:WORST]]
        line += f"; {found.few:,} below {FEW} images: {'; '.join(rarest)}"
        line += "; ..." if found.few > len(rarest) else ""
    return line


def _pair(what: str, pair: Pair, dataset: Dataset, seconds: Dataset) -> str:
    first, second = dataset.title(pair.first), seconds.title(pair.second)
    line = f"{first} {'~' if pair.distance else '='} {second}"
    if pair.mirrored:
        line += ", mirrored"
    if pair.distance:
        line += f", {pair.distance:.1f} of 255 apart"
    if what == "label conflicts":
        one, other = dataset.labels[[pair.first, pair.second]]
        line += ": " + ", ".join(
            f"{attribute.name} {attribute.values[a]} or {attribute.values[b]}"
            for attribute, a, b in zip(dataset.attributes, one, other, strict=True)
            if a != b
        )
    return line
