"""Label faithfulness of samples, measured by a classifier of real images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from service.core.manifest import Attribute
from training.evaluation.images import Images
from training.evaluation.metrics.diversity import diversity
from training.evaluation.metrics.entropy import Entropies, entropies
from training.evaluation.verifier import Verifier

BATCH = 256


@dataclass(frozen=True)
class ValueScore:
    """Images with one value of an attribute.

    A sample has the value that was requested, or the value that the classifier reads if the model
    is unconditional. A held-out image has the value of its label.
    """

    value: str
    samples: int
    right: float | None
    """Share of these samples that are read as requested; None for an unconditional model."""
    diversity: float | None
    """Mean distance between two of these samples; None for fewer than two."""
    real: int
    real_right: float | None
    real_diversity: float | None


@dataclass(frozen=True)
class AttributeScore:
    """One attribute: shares read right, entropies in nats, and a score for each value."""

    name: str
    right: float | None
    """Share of the samples that are read as requested; None for an unconditional model."""
    real_right: float | None
    """Share of the held-out images that are read right."""
    entropies: Entropies
    real_entropies: Entropies
    values: tuple[ValueScore, ...]


@dataclass(frozen=True)
class LabelReading:
    """Output of a verifier for N images."""

    probabilities: tuple[Tensor, ...]
    """For each attribute, ``[N, values]``."""
    labels: Tensor
    """``[N, A]``: true or requested labels, or those read if none were requested."""
    right: Tensor
    """bool ``[N, A]``: True if the label is read from the image."""
    features: Tensor
    """``[N, D]``."""


def read_labels(
    verifier: Verifier, images: Images, features: Tensor, *, labelled: bool
) -> LabelReading:
    """Classify ``images`` by their ``features [N, D]``.

    Without ``labelled``, the labels that are read count as the labels of the images.
    """
    with torch.no_grad():
        parts = [verifier.of_features(part) for part in features.split(BATCH)]
    probabilities = tuple(torch.cat(attribute) for attribute in zip(*parts, strict=True))
    read = torch.stack([each.argmax(dim=1) for each in probabilities], dim=1)
    labels = images.labels if labelled else read
    return LabelReading(probabilities, labels, read == labels, features)


def score_attribute(
    a: int, attribute: Attribute, samples: LabelReading, real: LabelReading, conditional: bool
) -> AttributeScore:
    """Score ``attribute``, which is in column ``a`` of the labels."""
    values = []
    for v, value in enumerate(attribute.values):
        rows, real_rows = samples.labels[:, a] == v, real.labels[:, a] == v
        values.append(
            ValueScore(
                value=value,
                samples=int(rows.sum()),
                right=share(samples.right[rows, a]) if conditional else None,
                diversity=_diversity(samples.features[rows]),
                real=int(real_rows.sum()),
                real_right=share(real.right[real_rows, a]),
                real_diversity=_diversity(real.features[real_rows]),
            )
        )
    return AttributeScore(
        name=attribute.name,
        right=share(samples.right[:, a]) if conditional else None,
        real_right=share(real.right[:, a]),
        entropies=entropies(samples.probabilities[a]),
        real_entropies=entropies(real.probabilities[a]),
        values=tuple(values),
    )


def share(which: Tensor) -> float | None:
    """Share of True in bool ``which [N]``, 0 to 1; None if N is 0."""
    return float(which.float().mean()) if len(which) else None


def _diversity(features: Tensor) -> float | None:
    return diversity(features) if len(features) > 1 else None
