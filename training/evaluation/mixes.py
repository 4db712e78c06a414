"""Mixes of real and synthetic images, and the sets of samples that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from service.core import latents
from service.core.manifest import Attribute
from training.core.device import CPU
from training.core.randomness import stream
from training.evaluation.classifiers import Recipe
from training.evaluation.features import FeatureNetwork
from training.evaluation.samples import Labelled, Samples
from training.networks.networks import Generator
from training.runs import sampling

Selection = Literal["any", "confident", "hard"]
Counts = Literal["frequency", "weak"]
Weights = tuple[npt.NDArray[np.float64], ...]
"""For each attribute, the share ``[values]`` of its samples that have each value; sums to 1."""
MAX_SET = 16_000
"""Largest set of samples; hard ones are selected from twice as many (400 MB for 64x64 RGB)."""
PART = 256
VERIFIED = 0.9
"""Least probability of the labels of `confident` samples, by the verifier."""

Verify = Callable[[npt.NDArray[np.uint8]], list[npt.NDArray[np.float32]]]
"""uint8 images to probabilities ``[N, values]`` of each attribute."""


@dataclass(frozen=True)
class Mix:
    """Set of samples that is added to real images, and how."""

    ratio: float = 0
    """Samples in the set for each real image."""
    pretrain: bool = False
    selection: Selection = "any"
    """`confident`: confirmed by the verifier. `hard`: labels that the user's classifier reads
    right, of these the half that it is least sure of."""
    counts: Counts = "frequency"
    """`weak`: more samples of the values that the user's classifier reads worst."""

    @property
    def recipe(self) -> Recipe:
        """A batch has at most as many samples as real images, however large the set is."""
        return Recipe(ratio=min(self.ratio, 1), pretrain=self.pretrain, classic=True)

    @property
    def cost(self) -> float:
        """Batches to train on for each batch of real images."""
        return 1 + self.recipe.ratio

    @property
    def refined(self) -> bool:
        """True if samples are selected, or counted by value."""
        return self.selection != "any" or self.counts != "frequency"

    def size(self, real: int) -> int:
        """Samples for ``real`` images."""
        return min(round(self.ratio * real), MAX_SET)


@dataclass(frozen=True)
class SampleSets:
    """Sets of samples of one generator."""

    pool: Samples
    """Labels drawn by frequency; at least twice ``MAX_SET``."""
    weak: Callable[[Weights], Samples]
    """Samples with values by their weights."""
    verify: Verify | None
    """None if the run has no verifier."""

    def of(self, mix: Mix, real: int, own: FeatureNetwork | None, weights: Weights) -> Samples:
        """Set of ``mix`` for ``real`` images; ``own`` is the user's classifier, for hard ones."""
        size = max(mix.size(real), 1)
        pool = self.weak(weights) if mix.counts == "weak" else self.pool
        if mix.selection == "any":
            rows = np.arange(size)
        elif mix.selection == "hard":
            assert own is not None
            rows = _hard(pool, own, size)
        else:
            rows = self._confident(size)
        return Samples(lambda first, count: pool.at(rows[first : first + count]), len(rows))

    def _confident(self, size: int) -> npt.NDArray[np.intp]:
        """The first ``size`` samples whose labels the verifier confirms, or fewer."""
        assert self.verify is not None
        accepted: list[int] = []
        for first in range(0, self.pool.limit, PART):
            images, labels = self.pool.take(first, min(PART, self.pool.limit - first))
            rows = np.arange(len(labels))
            each = [p[rows, c] for p, c in zip(self.verify(images), labels.T, strict=True)]
            accepted += (first + np.flatnonzero(np.min(each, axis=0) >= VERIFIED)).tolist()
            if len(accepted) >= size:
                break
        return np.array(accepted[:size] or range(size), dtype=np.intp)


def _hard(pool: Samples, own: FeatureNetwork, size: int) -> npt.NDArray[np.intp]:
    """Least sure half of the first ``2 * size`` samples whose labels ``own`` reads right."""
    device = next(own.parameters()).device
    right, sure = [], []
    for first in range(0, 2 * size, PART):
        images, labels = pool.take(first, min(PART, 2 * size - first))
        parts = own.probabilities(torch.from_numpy(images).to(device))
        truth = torch.from_numpy(labels).to(device)
        read = torch.stack([part.argmax(dim=1) for part in parts], dim=1)
        right.append((read == truth).all(dim=1).cpu().numpy())
        each = [p.gather(1, t[:, None])[:, 0] for p, t in zip(parts, truth.T, strict=True)]
        sure.append(torch.stack(each).amin(dim=0).cpu().numpy())
    rows = np.flatnonzero(np.concatenate(right))
    order = np.argsort(np.concatenate(sure)[rows], kind="stable")
    return rows[order][: max(len(rows) // 2, 1)] if len(rows) else np.arange(size)


def weak_samples(
    generator: Generator, attributes: tuple[Attribute, ...], seed: int, weights: Weights
) -> Samples:
    """Samples of which each has the value of one attribute drawn by ``weights``.

    Attributes take turns, and the others are drawn by frequency: a plan with a number for each
    value of each attribute.
    """

    def make(first: int, count: int) -> Labelled:
        labels = latents.draw_labels(seed, first, count, attributes)
        for a, shares in enumerate(weights):
            rows = np.flatnonzero((first + np.arange(count)) % len(weights) == a)
            draws = torch.multinomial(
                torch.from_numpy(shares),
                len(rows),
                replacement=True,
                generator=stream(seed, f"weak {a}", first, CPU),
            )
            labels[rows, a] = draws.numpy()
        latent = latents.latents(seed, first, count, generator.latent_size)
        return Labelled(sampling.sample(generator, latent, labels, attributes), labels)

    return Samples(make, MAX_SET)


def weak_weights(
    right: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], attributes: tuple[Attribute, ...]
) -> Weights:
    """Weights in proportion to the errors of a classifier, ``right [N, A]``, for each value.

    The mean error is added to each, because few images may show no error by chance.
    """
    weights = []
    for a, attribute in enumerate(attributes):
        wrong = ~right[:, a]
        errors = np.array(
            [
                wrong[labels[:, a] == v].mean() if (labels[:, a] == v).any() else wrong.mean()
                for v in range(len(attribute.values))
            ]
        )
        weight = errors + max(wrong.mean(), 0.5 / len(wrong))
        weight[np.array(attribute.frequencies) == 0] = 0  # the generator has never seen these
        weights.append(weight / weight.sum())
    return tuple(weights)
