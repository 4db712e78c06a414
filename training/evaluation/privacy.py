"""Privacy: how much of the training images the samples and the verifier give away.

Three questions, each with held-out images as the reference:

- Are samples nearer to training images than to held-out images?
- Is a sample's nearest training image much nearer than its second nearest, as a copy's is?
- Can an attacker with samples and verifier tell training images from others (membership inference,
  Shokri et al. 2017, https://arxiv.org/abs/1610.05820)?
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.core.device import CPU
from training.core.randomness import batch_indices, stream
from training.data import Dataset
from training.evaluation.images import MAX_IMAGES, Images, rows_of
from training.evaluation.memorisation import PART, pixels
from training.evaluation.verifier import Verifier

FALSE_POSITIVES = 0.01
"""Rate of false accusations at which an attack is judged. The average over all rates hides the few
images that are known with certainty (Carlini et al. 2022, https://arxiv.org/abs/2112.03570)."""
WARNING = 2 * FALSE_POSITIVES
"""True-positive rate from which a report warns: of a training image and another, equally likely, an
accused one is then the training image two times out of three. Chance gives one of two."""
SAMPLES = 20_000
"""Samples that an attacker fetches: a minute of one service."""
RESAMPLINGS = 200
Z_95 = 1.96

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Nearness:
    """Samples or held-out images beside training images, by pixels."""

    nearer: Interval
    """Share that is nearer to a training image than to a held-out image, out of as many of each;
    about 0.5 without copies."""
    ratio: float
    """Median of the distance to the nearest training image over that to the second nearest, 0 to 1;
    0 for a copy."""
    low_ratio: float
    """The 1st percentile of the same."""


@dataclass(frozen=True)
class Attack:
    """Membership inference: held-out images against as many training images."""

    name: str
    auc: Interval
    """Probability that a training image scores higher than another; 0.5 is chance."""
    found: Interval
    """Share of the training images found when 1 % of the others are accused; 0.01 is chance."""

    @property
    def alarming(self) -> bool:
        """True if the lower bound of ``found`` is above the threshold of a warning."""
        return self.found.low > WARNING


@dataclass(frozen=True)
class Privacy:
    samples: Nearness
    held_out: Nearness
    attacks: tuple[Attack, ...]


def privacy(
    trained: Dataset,
    held_out: Dataset,
    samples: Images,
    fetched: Tensor,
    verifier: Verifier | None,
) -> Privacy:
    """Measure ``samples``; ``fetched`` are the uint8 images that an attacker has."""
    device = samples.pixels.device
    count = min(len(held_out), len(trained), MAX_IMAGES)
    others = rows_of(held_out, held_out.spread(count), device)
    members = rows_of(trained, batch_indices(1, len(trained), 0, count, CPU).numpy(), device)
    half = count // 2
    reference, queries = others.pixels[:half], others.pixels[half:]
    training = torch.from_numpy(trained.images)

    def near(queries: Images) -> Tensor:
        parts = [part.amin(dim=1) for part in _distances(queries.pixels, fetched, PART)]
        return -torch.stack(parts).amin(dim=0)

    scores = {"distance to the nearest sample": [near(x) for x in (members, others)]}
    if verifier is not None:
        scores["confidence of the verifier"] = [_confidence(verifier, x) for x in (members, others)]
    return Privacy(
        samples=_nearness(samples.pixels, training, reference),
        held_out=_nearness(queries, training, reference),
        attacks=tuple(
            _attack(name, *(each.double().cpu().numpy() for each in pair))
            for name, pair in scores.items()
        ),
    )


def _nearness(queries: Tensor, training: Tensor, reference: Tensor) -> Nearness:
    """Compare ``queries`` with parts of ``training`` as large as ``reference``, and average."""
    (to_reference,) = (part.amin(dim=1) for part in _distances(queries, reference, len(reference)))
    nearer: list[Tensor] = []
    nearest = torch.full((len(queries), 2), torch.inf, device=queries.device)
    for part in _distances(queries, training, len(reference)):
        if part.shape[1] == len(reference) or not nearer:  # a smaller last part is farther away
            nearer.append(_wins(part.amin(dim=1), to_reference))
        nearest = torch.cat([nearest, part], dim=1).topk(2, dim=1, largest=False).values
    ratios = nearest[:, 0] / nearest[:, 1].clamp(min=1e-12)
    return Nearness(
        _mean(torch.stack(nearer).mean(dim=0)),
        float(ratios.median()),
        float(ratios.quantile(0.01)),
    )


def _wins(ours: Tensor, theirs: Tensor) -> Tensor:
    """1 where ``ours`` is smaller, and 0.5 where both are equal."""
    return (ours < theirs).double() + 0.5 * (ours == theirs).double()


def _distances(queries: Tensor, images: Tensor, size: int) -> Iterator[Tensor]:
    """Distances by pixels ``[N, size]`` to ``size`` images at a time, in either orientation.

    Products are fast and exact to about 0.1 of 255.
    """
    rows = pixels(queries)
    squares = rows.square().sum(dim=1, keepdim=True)
    for part in images.split(size):
        both = []
        for side in (part, part.flip(2)):
            others = pixels(side.to(queries.device))
            products = squares - 2 * rows @ others.T + others.square().sum(dim=1)
            both.append(products.clamp(min=0).sqrt())
        yield torch.minimum(*both)


@torch.no_grad()
def _confidence(verifier: Verifier, images: Images) -> Tensor:
    """Log-probability of the labels, sum over the attributes."""
    scores = []
    for rows, truth in zip(images.pixels.split(PART), images.labels.split(PART), strict=True):
        each = [p.gather(1, t[:, None])[:, 0] for p, t in zip(verifier(rows), truth.T, strict=True)]
        scores.append(torch.stack(each).clamp(min=1e-12).log().sum(dim=0))
    return torch.cat(scores)


def _attack(name: str, members: Floats, others: Floats) -> Attack:
    """Judge an attack by its scores of ``members`` and ``others``: training images score higher."""
    rng = np.random.default_rng(stream(0, "attack", 0, CPU).initial_seed())
    draws = [
        (rng.choice(members, len(members)), rng.choice(others, len(others)))
        for _ in range(RESAMPLINGS)
    ]
    return Attack(
        name,
        *(
            _bootstrap(statistic(members, others), [statistic(*pair) for pair in draws])
            for statistic in (auc, found_at)
        ),
    )


def auc(members: Floats, others: Floats) -> float:
    """Area under the ROC curve: the share of pairs in which the member scores higher."""
    order = np.sort(others)
    below = np.searchsorted(order, members, "left")
    equal = np.searchsorted(order, members, "right") - below
    return float((below + 0.5 * equal).mean() / len(others))


def found_at(members: Floats, others: Floats) -> float:
    """Share of ``members`` above the score that 1 % of ``others`` exceed."""
    allowed = math.floor(FALSE_POSITIVES * len(others))
    threshold = np.sort(others)[len(others) - 1 - allowed]
    return float((members > threshold).mean())


def _bootstrap(value: float, resampled: Sequence[float]) -> Interval:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _mean(values: Tensor) -> Interval:
    mean, half = float(values.mean()), Z_95 * float(values.std()) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)
