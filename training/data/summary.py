"""Summary of a data source for people: what ``train``, ``audit`` and ``--dry-run`` print first."""

from __future__ import annotations

from training.data.dataset import Dataset

MAX_VALUES = 20
"""Values of an attribute that are listed; of more, the rarest."""
RAREST = 5


def summary(dataset: Dataset) -> list[str]:
    """Lines on the images, the values of each attribute, what was read and what was left out."""
    height, width, channels = dataset.images.shape[1:]
    colour = "grey" if channels == 1 else "RGB"
    lines = [f"{dataset.name}: {len(dataset):,} images of {width}x{height} {colour}"]
    for attribute, column in zip(dataset.attributes, dataset.labels.T, strict=True):
        counts = [int((column == value).sum()) for value in range(len(attribute.values))]
        pairs = list(zip(attribute.values, counts, strict=True))
        many = len(pairs) > MAX_VALUES
        if many:
            pairs = sorted(pairs, key=lambda pair: pair[1])[:RAREST]
        shown = ", ".join(f"{value} {count:,}" for value, count in pairs)
        start = f"{len(counts):,} values, the rarest " if many else ""
        lines.append(f"{attribute.name}: {start}{shown}")
    if not dataset.attributes:
        lines.append("labels: none")
    return lines + (dataset.reading.lines() if dataset.reading else [])
