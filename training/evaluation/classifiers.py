"""Classifiers trained on few real images, with or without synthetic ones, to compare recipes.

Every recipe takes the same number of passes over the real images, and synthetic images come on top:
the classifier learns no less from real images because it also sees others.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.core.adam import Adam
from training.core.device import CPU
from training.core.pixels import to_networks
from training.core.randomness import batch_indices, scoped_seed, stream
from training.data import Dataset
from training.evaluation.features import WIDTH, FeatureNetwork, new_network, train_step
from training.evaluation.samples import Labelled, Samples
from training.evaluation.verifier import calibration_error
from training.networks.augment import DRAWS, augment, mirror

BATCH = 64
"""Real images in a batch; synthetic ones are added to them."""
LR = 1e-3
FINE_TUNE_LR = 3e-4
"""Rate on real images after pretraining, which the full rate would undo within a pass."""
OPERATIONS, PROBABILITY = ("translation", "cutout"), 0.7  # never colour: a label may name it
CHECKS = 20
"""Times that the validation images are read in a training."""
VALIDATION = 10
"""One real image in so many is kept for early stopping."""


@dataclass(frozen=True)
class Recipe:
    """Images that a classifier is trained on."""

    ratio: float = 0
    """Synthetic images for each real one, 0 or more."""
    pretrain: bool = False
    """True to train on synthetic images first, then on real ones; else on both in each batch."""
    classic: bool = False
    """Translate, cut out and, if allowed, mirror all images."""


@dataclass(frozen=True)
class Outcome:
    """Result of a classifier on real images that were not in its training."""

    right: npt.NDArray[np.bool_]
    """``[N, A]``: True if the label is read right."""
    calibration_error: float
    """Expected calibration error, mean over the attributes, 0 to 1; lower is better."""


@dataclass(frozen=True)
class ClassifierTraining:
    """Settings that all compared classifiers share. On a CPU, results are deterministic."""

    mirror: bool
    """True if classic augmentation may mirror the images."""
    device: torch.device
    width: int = WIDTH
    min_passes: float = 25
    """Passes over the real images, at least."""
    min_steps: int = 1000
    """Steps on real images, at least: a few images are soon passed over."""

    def steps(self, images: int) -> int:
        """Steps on a set of ``images`` real images."""
        return max(self.min_steps, math.ceil(self.min_passes * images / BATCH))

    def fit(self, real: Dataset, samples: Samples, recipe: Recipe, seed: int) -> FeatureNetwork:
        """Train a classifier on ``real`` and, by ``recipe``, on ``samples``.

        A tenth of ``real`` chooses among the states of the training (early stopping). Fewer than
        ten images choose none, and the last state is used. Classifiers of one seed start with the
        same weights.
        """
        order = torch.randperm(len(real), generator=stream(seed, "validation", 0, CPU)).numpy()
        validation, learnt = (
            Labelled(real.images[rows], real.labels[rows])
            for rows in np.split(order, [len(real) // VALIDATION])
        )
        steps = self.steps(len(learnt.images))
        synthetic = 0 if recipe.pretrain else round(BATCH * recipe.ratio)

        def batch(step: int) -> Labelled:
            rows = batch_indices(seed, len(learnt.images), step * BATCH, BATCH, CPU).numpy()
            chosen = Labelled(learnt.images[rows], learnt.labels[rows])
            if not synthetic:
                return chosen
            others = samples.take(step * synthetic, synthetic)
            return Labelled(
                np.concatenate([chosen.images, others.images]),
                np.concatenate([chosen.labels, others.labels]),
            )

        with scoped_seed(seed, "utility", 0, self.device):
            network, lr = new_network(real, self.device, self.width), LR
            if recipe.pretrain:
                self._fit_samples(
                    network, samples, round(steps * recipe.ratio), recipe.classic, seed
                )
                lr = FINE_TUNE_LR
            return self._train(network, batch, steps, lr, recipe.classic, seed, validation)

    def fit_samples(self, like: Dataset, samples: Samples, steps: int, seed: int) -> FeatureNetwork:
        """Train a classifier for the labels of ``like`` on ``steps`` batches of samples alone."""
        with scoped_seed(seed, "utility", 0, self.device):
            network = new_network(like, self.device, self.width)
            return self._fit_samples(network, samples, steps, False, seed)

    def _fit_samples(
        self, network: FeatureNetwork, samples: Samples, steps: int, classic: bool, seed: int
    ) -> FeatureNetwork:
        def batch(step: int) -> Labelled:
            return samples.take(step * BATCH, BATCH)

        return self._train(network, batch, steps, LR, classic, seed, None)

    def _train(
        self,
        network: FeatureNetwork,
        batch: Callable[[int], Labelled],
        steps: int,
        lr: float,
        classic: bool,
        seed: int,
        validation: Labelled | None,
    ) -> FeatureNetwork:
        """Train for ``steps``, with a rate that falls to 0, and return to the best state by
        ``validation``, or stay at the last. The network is in inference mode before and after."""
        optimizer = Adam(network.parameters(), lr, fused=True)
        best, state = -math.inf, None
        checks = {steps * (check + 1) // CHECKS for check in range(CHECKS)}
        for step in range(steps):
            images, labels = batch(step)
            pixels = to_networks(torch.from_numpy(images).to(self.device))
            if classic:
                pixels = self._augment(pixels, seed, step)
            targets = torch.from_numpy(labels).to(self.device)
            train_step(network.train(), optimizer, lr * (1 - step / steps), pixels, targets)
            if validation is not None and len(validation.images) and step + 1 in checks:
                score = self._confidence(network.eval(), validation)
                if score >= best:
                    best, state = score, copy.deepcopy(network.state_dict())
        if state is not None:
            network.load_state_dict(state)
        return network.eval()

    def _confidence(self, network: FeatureNetwork, data: Labelled) -> float:
        """Mean probability of the true labels.

        One image cannot dominate it, as it can the loss, and it tells states apart on twenty
        images, as accuracy does not.
        """
        labels = torch.from_numpy(data.labels).to(self.device)
        probabilities = network.probabilities(torch.from_numpy(data.images).to(self.device))
        pairs = zip(probabilities, labels.T, strict=True)
        return sum(float(part.gather(1, truth[:, None]).mean()) for part, truth in pairs)

    def _augment(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Translate, cut out and mirror parts of ``images [N, channels, H, W]`` in [-1, 1]."""
        shape = (len(images), len(OPERATIONS) + 1, DRAWS)
        uniform = torch.rand(shape, generator=stream(seed, "augment", step, CPU)).to(self.device)
        if self.mirror:
            images = mirror(images, uniform[:, -1, 0])
        return augment(images, OPERATIONS, PROBABILITY, uniform[:, :-1])

    def test(self, network: FeatureNetwork, data: Dataset) -> Outcome:
        """Read the labels of ``data`` with ``network``."""
        labels = torch.from_numpy(data.labels).to(self.device)
        probabilities = network.probabilities(torch.from_numpy(data.images).to(self.device))
        pairs = list(zip(probabilities, labels.T, strict=True))
        right = torch.stack([part.argmax(dim=1) == truth for part, truth in pairs], dim=1)
        errors = [calibration_error(part, truth) for part, truth in pairs]
        return Outcome(right.cpu().numpy(), sum(errors) / len(errors))
