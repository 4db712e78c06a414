"""Does a model's synthetic data help a classifier that has few real images?

The same classifier is trained on real images, on real images with classic augmentation, on real and
synthetic ones, and on synthetic ones alone. The test is on real images that none of them saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.core.pixels import to_networks
from training.core.randomness import batch_indices, scoped_seed, stream
from training.data import Dataset
from training.evaluation.features import FeatureNetwork, new_network, train_step
from training.networks.augment import DRAWS, augment, mirror

STEPS, BATCH, LR = 400, 64, 1e-3
OPERATIONS, PROBABILITY = ("translation", "cutout"), 0.7  # never colour: labels may tell it
REAL, CLASSIC, MIXED, SYNTHETIC = "real", "real + classic", "real + synthetic", "synthetic"
ARMS = (REAL, CLASSIC, MIXED, SYNTHETIC)
CPU = torch.device("cpu")

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook of
# Statistical Methods, https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm).
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Plan(NamedTuple):
    """Which trial of an experiment; ``budget`` is None for synthetic images alone."""

    arm: str
    budget: int | None
    seed: int


@dataclass(frozen=True)
class Trial:
    """A classifier that was trained and tested, and on how many different real images."""

    arm: str
    budget: int | None
    seed: int
    images: int
    accuracy: float
    """The mean over the attributes."""
    attributes: dict[str, float]
    """Share of the held-out images of which each attribute is read right."""


@dataclass(frozen=True)
class GanTrainScore:
    """Two classifiers that learnt as long as it takes, one from real images and one from samples:
    share of held-out images of which each attribute is read right (GAN-train of Shmelkov et al.
    2018, https://arxiv.org/abs/1807.09499, section 3)."""

    real: dict[str, float]
    synthetic: dict[str, float]


@dataclass(frozen=True)
class Experiment:
    """What all trials share. Raises ``ValueError`` for data that do not go together."""

    real: Dataset
    """Budgets are drawn from it."""
    synthetic: Dataset
    held_out: Dataset
    mirror: bool
    """Whether classic augmentation may mirror these images."""
    device: torch.device
    steps: int = STEPS
    """The same in every arm, so that all cost the same."""

    def __post_init__(self) -> None:
        sets = (self.real, self.synthetic, self.held_out)
        if not self.real.attributes or not all(map(len, sets)):
            raise ValueError("a classifier needs images with labels")
        shapes = {data.images.shape[1:] for data in sets}
        # How frequent the values are may differ.
        meanings = {tuple((x.name, x.values) for x in data.attributes) for data in sets}
        if len(shapes) > 1 or len(meanings) > 1:
            raise ValueError("the images differ in their shape or in what their labels mean")

    def trials(self, plans: Iterable[Plan]) -> Iterator[Trial]:
        """Carry out ``plans`` one by one. On a CPU, a trial is a function of data and plan.

        Raises ``ValueError`` for a budget below 1.
        """
        for plan in plans:
            parts, images = [self.synthetic], 0
            if plan.budget is not None:
                chosen = self.real.take(subset(self.real, plan.budget, plan.seed))
                parts, images = [chosen, *parts] if plan.arm == MIXED else [chosen], len(chosen)
            right = self.test(self._fit(parts, plan))
            yield Trial(*plan, images, fmean(right.values()), right)

    def _fit(self, parts: Sequence[Dataset], plan: Plan) -> FeatureNetwork:
        """A classifier that sees as many images of each of ``parts``, in every batch.

        All arms of a seed begin with the same weights.
        """
        share = BATCH // len(parts)
        with scoped_seed(plan.seed, "utility", 0, self.device):
            network = new_network(self.real, self.device).train()
            optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
            for step in range(self.steps):
                chosen = [
                    batch_indices(plan.seed, len(part), step * share, share, CPU).numpy()
                    for part in parts
                ]
                pairs = list(zip(parts, chosen, strict=True))
                images = np.concatenate([part.images[rows] for part, rows in pairs])
                labels = np.concatenate([part.labels[rows] for part, rows in pairs])
                batch = to_networks(torch.from_numpy(images).to(self.device))
                if plan.arm == CLASSIC:
                    batch = self._changed(batch, plan.seed, step)
                targets = torch.from_numpy(labels).to(self.device)
                train_step(network, optimizer, LR * (1 - step / self.steps), batch, targets)
        return network.eval()

    def _changed(self, images: Tensor, seed: int, step: int) -> Tensor:
        """``images [N, channels, H, W]`` in [-1, 1], augmented."""
        shape = (len(images), len(OPERATIONS) + 1, DRAWS)
        generator = stream(seed, "augment", step, self.device)
        uniform = torch.rand(shape, generator=generator, device=self.device)
        if self.mirror:
            images = mirror(images, uniform[:, -1, 0])
        return augment(images, OPERATIONS, PROBABILITY, uniform[:, :-1])

    def test(self, network: FeatureNetwork) -> dict[str, float]:
        """Share of the held-out images of which each attribute is read right."""
        images = torch.from_numpy(self.held_out.images).to(self.device)
        read = network.read(network.features(images)).cpu().numpy()
        right = (read == self.held_out.labels).mean(axis=0).tolist()
        return {x.name: share for x, share in zip(self.real.attributes, right, strict=True)}


def planned(budgets: Sequence[int], seeds: Sequence[int], done: Iterable[Trial] = ()) -> list[Plan]:
    """All trials that are not ``done``, seed by seed: any beginning of them compares all arms."""
    plans = []
    for seed in seeds:
        plans.append(Plan(SYNTHETIC, None, seed))
        plans += [Plan(arm, budget, seed) for budget in budgets for arm in (REAL, CLASSIC, MIXED)]
    finished = {(trial.arm, trial.budget, trial.seed) for trial in done}
    return [plan for plan in plans if plan not in finished]


def subset(dataset: Dataset, budget: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which images ``[N]`` a budget buys: of every value ``budget`` at random, or all it has.

    An image counts for all its values, so that there may be more of a value. A larger budget of the
    same seed buys these and more. Raises ``ValueError`` for a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} buys no images")
    rows = np.zeros(len(dataset), dtype=np.bool_)
    for column, attribute in zip(dataset.labels.T, dataset.attributes, strict=True):
        for index, value in enumerate(attribute.values):
            having = np.flatnonzero(column == index)
            generator = stream(seed, f"subset {attribute.name}={value}", 0, CPU)
            rows[having[torch.randperm(len(having), generator=generator)[:budget].numpy()]] = True
    return rows


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % confidence interval, None where there is only one seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of ``values``, one for each seed, and its interval by Student's t.

    More than 31 values get the t of 31, which is at most 5 % too wide.
    """
    mean, seeds = fmean(values), len(values)
    if seeds == 1:
        return Estimate(mean, None, None, seeds)
    half = T_95[min(seeds - 1, len(T_95)) - 1] * stdev(values) / math.sqrt(seeds)
    return Estimate(mean, mean - half, mean + half, seeds)
