"""Failure cases: the labels that are read wrong most often, and the least certain samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from service.core.manifest import Attribute
from training.evaluation.label_scores import LabelReading

ROWS = 4
"""Labels with most errors that are shown."""
COLUMNS = 8
"""Samples shown of each, and of the least certain."""


@dataclass(frozen=True)
class Case:
    """One sample as the classifier reads it."""

    index: int
    """Index of the sample in the seed of the evaluation."""
    attribute: str
    asked: str | None
    """Requested value; None for an unconditional model."""
    read: str
    probability: float
    """Probability of ``read``, by the classifier."""

    @property
    def caption(self) -> tuple[str, str]:
        asked = self.attribute if self.asked is None else f"{self.attribute}: {self.asked}"
        return asked, f"read {self.read} {self.probability:.0%}"


@dataclass(frozen=True)
class Failures:
    """A row of failure cases."""

    title: str
    cases: tuple[Case, ...]


def failures(
    samples: LabelReading, attributes: Sequence[Attribute], conditional: bool
) -> tuple[Failures, ...]:
    """Rows for the labels of ``attributes`` with most errors, if requested, then least certain."""
    confidences, reads = zip(*(each.max(dim=1) for each in samples.probabilities), strict=True)
    confidence, read = torch.stack(confidences, dim=1), torch.stack(reads, dim=1)

    def case(row: int, a: int) -> Case:
        values = attributes[a].values
        asked = values[int(samples.labels[row, a])] if conditional else None
        probability = round(float(confidence[row, a]), 4)
        return Case(row, attributes[a].name, asked, values[int(read[row, a])], probability)

    found = []
    for a, attribute in enumerate(attributes):
        for v, value in enumerate(attribute.values):
            asked = samples.labels[:, a] == v
            wrong = (asked & ~samples.right[:, a]).nonzero()[:, 0]
            if len(wrong):
                surest = wrong[confidence[wrong, a].argsort(descending=True, stable=True)]
                cases = tuple(case(row, a) for row in surest[:COLUMNS].tolist())
                share = len(wrong) / int(asked.sum())
                title = (
                    f"{attribute.name} {value}: {share:.1%} of {int(asked.sum())} read as others"
                )
                found.append((share, Failures(title, cases)))
    found = sorted(found, key=lambda each: -each[0])[:ROWS]
    lowest, which = confidence.min(dim=1)
    unsure = lowest.argsort(stable=True)[:COLUMNS].tolist()
    least = Failures("least certain", tuple(case(row, int(which[row])) for row in unsure))
    return (*(each for _, each in found), least)
