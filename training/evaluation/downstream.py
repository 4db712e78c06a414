"""Downstream benefit: the accuracy of a classifier trained with a model's synthetic images.

Four arms train the same classifier: on real images, on real images with classic augmentation, on
real and synthetic images, and on synthetic images alone. All are tested on held-out real images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.core.device import CPU
from training.core.pixels import to_networks
from training.core.randomness import batch_indices, scoped_seed, stream
from training.data import Dataset
from training.evaluation.features import FeatureNetwork, new_network, train_step
from training.networks.augment import DRAWS, augment, mirror

STEPS, BATCH, LR = 400, 64, 1e-3
OPERATIONS, PROBABILITY = ("translation", "cutout"), 0.7  # never colour: a label may name it
REAL, CLASSIC, MIXED, SYNTHETIC = "real", "real + classic", "real + synthetic", "synthetic"
ARMS = (REAL, CLASSIC, MIXED, SYNTHETIC)


class Plan(NamedTuple):
    """One trial of an experiment; ``budget`` is None for synthetic images alone."""

    arm: str
    budget: int | None
    seed: int


@dataclass(frozen=True)
class Trial:
    """Result of training and testing one classifier."""

    arm: str
    budget: int | None
    seed: int
    images: int
    """Different real images that it was trained on."""
    accuracy: float
    """Mean over the attributes, 0 to 1."""
    attributes: dict[str, float]
    """Share of the held-out images of which each attribute is read right."""


@dataclass(frozen=True)
class GanTrainScore:
    """Accuracy of a classifier trained to the end on real images, and of one trained on samples.

    For each attribute, the share of held-out images that are read right, 0 to 1; higher is better
    (GAN-train of Shmelkov et al. 2018, https://arxiv.org/abs/1807.09499, section 3).
    """

    real: dict[str, float]
    synthetic: dict[str, float]


@dataclass(frozen=True)
class Experiment:
    """Data and settings that all trials share.

    Raises ``ValueError`` for data without labels, or of different shapes or labels.
    """

    real: Dataset
    """Training images; budgets are drawn from them."""
    synthetic: Dataset
    held_out: Dataset
    mirror: bool
    """True if classic augmentation may mirror these images."""
    device: torch.device
    steps: int = STEPS
    """Training steps, equal in every arm, so that all cost the same."""

    def __post_init__(self) -> None:
        sets = (self.real, self.synthetic, self.held_out)
        if not self.real.attributes or not all(map(len, sets)):
            raise ValueError("a classifier needs images with labels")
        shapes = {data.images.shape[1:] for data in sets}
        # Frequencies of the values may differ.
        meanings = {tuple((x.name, x.values) for x in data.attributes) for data in sets}
        if len(shapes) > 1 or len(meanings) > 1:
            raise ValueError("the images differ in their shape or in what their labels mean")

    def trials(self, plans: Iterable[Plan]) -> Iterator[Trial]:
        """Run ``plans`` one by one. On a CPU, a trial is a function of data and plan.

        Raises ``ValueError`` for a budget below 1.
        """
        for plan in plans:
            parts, images = [self.synthetic], 0
            if plan.budget is not None:
                chosen = self.real.take(subset(self.real, plan.budget, plan.seed))
                parts, images = [chosen, *parts] if plan.arm == MIXED else [chosen], len(chosen)
            right = self.test(self._train(parts, plan))
            yield Trial(*plan, images, fmean(right.values()), right)

    def _train(self, parts: Sequence[Dataset], plan: Plan) -> FeatureNetwork:
        """Train a classifier on batches with as many images of each of ``parts``.

        All arms of a seed start with the same weights.
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
                    batch = self._augment(batch, plan.seed, step)
                targets = torch.from_numpy(labels).to(self.device)
                train_step(network, optimizer, LR * (1 - step / self.steps), batch, targets)
        return network.eval()

    def _augment(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Translate, cut out and mirror parts of ``images [N, channels, H, W]`` in [-1, 1]."""
        shape = (len(images), len(OPERATIONS) + 1, DRAWS)
        generator = stream(seed, "augment", step, CPU)
        uniform = torch.rand(shape, generator=generator).to(self.device)
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
    """Trials that are not ``done``, seed by seed, so that an interrupted run compares all arms."""
    plans = []
    for seed in seeds:
        plans.append(Plan(SYNTHETIC, None, seed))
        plans += [Plan(arm, budget, seed) for budget in budgets for arm in (REAL, CLASSIC, MIXED)]
    finished = {(trial.arm, trial.budget, trial.seed) for trial in done}
    return [plan for plan in plans if plan not in finished]


def subset(dataset: Dataset, budget: int, seed: int) -> npt.NDArray[np.bool_]:
    """Mask ``[N]`` of a budget: ``budget`` random images of every value, or all that it has.

    An image counts for all its values, so a value may have more images. A larger budget of the
    same seed contains a smaller one. Raises ``ValueError`` for a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} has no images")
    rows = np.zeros(len(dataset), dtype=np.bool_)
    for column, attribute in zip(dataset.labels.T, dataset.attributes, strict=True):
        for index, value in enumerate(attribute.values):
            having = np.flatnonzero(column == index)
            generator = stream(seed, f"subset {attribute.name}={value}", 0, CPU)
            rows[having[torch.randperm(len(having), generator=generator)[:budget].numpy()]] = True
    return rows
