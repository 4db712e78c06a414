"""Downstream benefit: the accuracy of a classifier trained with a model's synthetic images.

Arms train the same classifier on the same real images, with equal passes over them, and differ in
what is added. All are tested on held-out real images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from training.core.device import CPU
from training.core.randomness import stream
from training.data import Dataset
from training.evaluation.classifiers import ClassifierTraining, Recipe
from training.evaluation.samples import Samples

REAL, CLASSIC, SYNTHETIC = "real", "real + classic", "synthetic"
ARMS = {
    REAL: Recipe(),
    CLASSIC: Recipe(classic=True),
    "real + synthetic": Recipe(ratio=1),
    "real + classic + synthetic": Recipe(ratio=1, classic=True),
    "pretrained, real": Recipe(ratio=1, pretrain=True),
    "pretrained, real + classic": Recipe(ratio=1, pretrain=True, classic=True),
}
"""Recipe of each arm that has real images."""


class Plan(NamedTuple):
    """One trial of an experiment."""

    arm: str
    budget: int | None
    """Real images of each value; None for all images, 0 for the arm of samples alone."""
    seed: int


@dataclass(frozen=True)
class Trial:
    """Result of training and testing one classifier; shares of held-out images, 0 to 1."""

    arm: str
    budget: int | None
    seed: int
    images: int
    """Different real images that it was trained on."""
    accuracy: float
    """Labels read right, mean over the attributes."""
    attributes: dict[str, float]
    """Labels read right, for each attribute."""
    values: dict[str, dict[str, float]]
    """Share read right for each value of each attribute that has held-out images."""
    calibration_error: float


@dataclass(frozen=True)
class Experiment:
    """Data and settings that all trials share.

    Raises ``ValueError`` for data without labels, or of different shapes or labels.
    """

    real: Dataset
    """Training images; budgets are drawn from them."""
    samples: Samples
    held_out: Dataset
    training: ClassifierTraining

    def __post_init__(self) -> None:
        if not self.real.attributes or not len(self.real) or not len(self.held_out):
            raise ValueError("a classifier needs images with labels")
        shapes = {data.images.shape[1:] for data in (self.real, self.held_out)}
        # Frequencies of the values may differ.
        meanings = {
            tuple((x.name, x.values) for x in data.attributes)
            for data in (self.real, self.held_out)
        }
        if len(shapes) > 1 or len(meanings) > 1:
            raise ValueError("the images differ in their shape or in what their labels mean")

    def trials(self, plans: Iterable[Plan]) -> Iterator[Trial]:
        """Run ``plans`` one by one. On a CPU, a trial is a function of data and plan."""
        for plan in plans:
            if plan.budget == 0:
                images, steps = 0, self.training.steps(len(self.real))
                network = self.training.fit_samples(self.real, self.samples, steps, plan.seed)
            else:
                chosen = self.real.take(subset(self.real, plan.budget, plan.seed))
                images = len(chosen)
                network = self.training.fit(chosen, self.samples, ARMS[plan.arm], plan.seed)
            result = self.training.test(network, self.held_out)
            shares = dict(
                zip((x.name for x in self.real.attributes), result.right.mean(0), strict=True)
            )
            yield Trial(
                *plan,
                images,
                accuracy=fmean(shares.values()),
                attributes={name: float(share) for name, share in shares.items()},
                values=value_shares(self.held_out, result.right),
                calibration_error=result.calibration_error,
            )


def value_shares(data: Dataset, right: npt.NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Share of True in ``right [N, A]`` for each value of each attribute that ``data`` has."""
    return {
        attribute.name: {
            value: float(column[labels == v].mean())
            for v, value in enumerate(attribute.values)
            if (labels == v).any()
        }
        for attribute, labels, column in zip(data.attributes, data.labels.T, right.T, strict=True)
    }


def planned(
    budgets: Sequence[int | None], seeds: Sequence[int], done: Iterable[Trial] = ()
) -> list[Plan]:
    """Trials that are not ``done``, seed by seed, so that an interrupted run compares all arms."""
    plans = []
    for seed in seeds:
        plans.append(Plan(SYNTHETIC, 0, seed))
        plans += [Plan(arm, budget, seed) for budget in budgets for arm in ARMS]
    finished = {(trial.arm, trial.budget, trial.seed) for trial in done}
    return [plan for plan in plans if plan not in finished]


def subset(dataset: Dataset, budget: int | None, seed: int) -> npt.NDArray[np.bool_]:
    """Mask ``[N]`` of a budget: ``budget`` random images of every value, or all that it has.

    An image counts for all its values, so a value may have more images. A larger budget of the
    same seed contains a smaller one, and None contains all images. Raises ``ValueError`` for a
    budget below 1.
    """
    if budget is None:
        return np.ones(len(dataset), dtype=np.bool_)
    if budget < 1:
        raise ValueError(f"a budget of {budget} has no images")
    rows = np.zeros(len(dataset), dtype=np.bool_)
    for column, attribute in zip(dataset.labels.T, dataset.attributes, strict=True):
        for index, value in enumerate(attribute.values):
            having = np.flatnonzero(column == index)
            generator = stream(seed, f"subset {attribute.name}={value}", 0, CPU)
            rows[having[torch.randperm(len(having), generator=generator)[:budget].numpy()]] = True
    return rows
