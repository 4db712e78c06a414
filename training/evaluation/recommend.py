"""Search for the mix of real and synthetic images that helps a classifier most, or for none.

Cross-validation on the user's images, in two stages on different partitions, so that the mix is not
measured on the folds that it was chosen on:

1. Screen: each mix on two folds. Of those within one standard error of the best, the one with the
   fewest samples goes on; then selections and counts are tried in the same way.
2. Confirm: this mix on five folds. It is recommended if its gain exceeds one standard error.

Time is limited: classifiers are trained less, and mixes for which no time is left are not tried.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, variance
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.core.device import CPU
from training.core.randomness import stream
from training.data import Dataset
from training.evaluation.classifiers import ClassifierTraining
from training.evaluation.confidence import T_95, Estimate
from training.evaluation.features import FeatureNetwork
from training.evaluation.mixes import Mix, SampleSets, Weights, weak_weights
from training.runs.log import Log

NONE = Mix()
RATIOS = (0.25, 1, 4, 16)
FOLDS, SCREENED = 5, 2
"""Folds of a partition, and how many of them screen."""
SCREEN, CONFIRM = 0, 1
"""Seeds of the partitions."""
MIN_IMAGES = 100
"""Real images without which nothing is recommended: 20 to test on in each fold."""
MIN_SCALE = 0.4
"""Least share of the usual training: instead of less, mixes are left out."""
PROBE_STEPS, PROBE_SAMPLES = 20, 512


@dataclass(frozen=True)
class Gain:
    """Gain of a mix over the same images without it; accuracies are means over the attributes."""

    mix: Mix
    mean: float
    error: float
    """Standard error."""


@dataclass(frozen=True)
class Result:
    """Result of a search."""

    screened: tuple[Gain, ...]
    confirmed: Gain
    accuracy: float
    """Accuracy without synthetic images, in the second stage."""
    tested: int
    """Real images that accuracy is measured on."""
    weights: Weights
    scale: float
    """Share of the usual training that each classifier got."""
    left_out: tuple[Mix, ...] = ()
    """Mixes that were not tried for want of time."""

    @property
    def mix(self) -> Mix:
        """The recommended mix: the best one, or none if its gain is within one standard error."""
        return self.confirmed.mix if self.confirmed.mean > self.confirmed.error else NONE

    @property
    def gain(self) -> Estimate:
        """Gain of the confirmed mix, with a 95 % interval by Student's t over the folds."""
        mean, half = self.confirmed.mean, T_95[FOLDS - 2] * self.confirmed.error
        return Estimate(mean, mean - half, mean + half, FOLDS)


@dataclass
class Search:
    """Cross-validation of mixes on ``real``; each trial is kept in ``log``."""

    real: Dataset
    testable: npt.NDArray[np.bool_]
    """``[N]``: images that the generator has not been trained on."""
    sets: SampleSets
    training: ClassifierTraining
    log: Log
    told: dict[str, Any]
    """Fields of the log's lines; a line with others belongs to another search."""
    minutes: float
    """Most that a search takes, but for the first mix, which is always tried and confirmed."""
    progress: Callable[[], object] = lambda: None
    """Called after each trial, also after those that are left out."""
    clock: Callable[[], float] = time.perf_counter
    _own: dict[tuple[int, int], FeatureNetwork] = field(default_factory=dict, init=False)

    def run(self) -> Result:
        scale = self._scale()
        full = self.training
        self.training = replace(
            full,
            min_passes=full.min_passes * scale,
            min_steps=math.ceil(full.min_steps * scale),
        )
        base = [self._trial(SCREEN, fold, NONE, ()) for fold in range(SCREENED)]
        labels = [self.real.labels[self._split(SCREEN, fold)[1]] for fold in range(SCREENED)]
        weights = weak_weights(np.concatenate(base), np.concatenate(labels), self.real.attributes)
        mixes = self.mixes()
        screened = [self._screen(mixes[0], base, weights)]
        screened += self._screened(mixes[1:], base, weights)
        refined = self.refined(simplest(screened).mix)
        screened += self._screened(refined, base, weights)
        best, tried = simplest(screened), {gain.mix for gain in screened}
        without = [self._trial(CONFIRM, fold, NONE, weights) for fold in range(FOLDS)]
        within = [self._trial(CONFIRM, fold, best.mix, weights) for fold in range(FOLDS)]
        confirmed = cross_validated(
            best.mix, [float(a.mean() - b.mean()) for a, b in zip(within, without, strict=True)]
        )
        return Result(
            tuple(screened),
            confirmed,
            fmean(float(right.mean()) for right in without),
            sum(map(len, without)),
            weights,
            scale,
            tuple(mix for mix in mixes + refined if mix not in tried),
        )

    def mixes(self) -> list[Mix]:
        """Ratios and schedules; a larger ratio that gives no larger set is left out."""
        sizes = {NONE.size(len(self.real)): 0.0}
        for ratio in RATIOS:
            sizes.setdefault(Mix(ratio).size(len(self.real)), ratio)
        ratios = [ratio for ratio in sizes.values() if ratio]
        return [Mix(ratio, pretrain) for ratio in ratios for pretrain in (False, True)]

    def refined(self, mix: Mix) -> list[Mix]:
        """Selections and counts of ``mix``."""
        found = [replace(mix, selection="hard"), replace(mix, counts="weak")]
        return found + ([replace(mix, selection="confident")] if self.sets.verify else [])

    def trials(self) -> int:
        """Number of trials."""
        mixes = self.mixes()
        return SCREENED * (1 + len(mixes) + len(self.refined(mixes[0]))) + 2 * FOLDS

    def _screened(
        self, mixes: Sequence[Mix], base: Sequence[npt.NDArray[np.bool_]], weights: Weights
    ) -> list[Gain]:
        """Gains of those of ``mixes`` that there is time for."""
        gains = []
        for mix in mixes:
            if self._has_time(mix):
                gains.append(self._screen(mix, base, weights))
            else:
                for _ in range(SCREENED):
                    self.progress()
        return gains

    def _has_time(self, mix: Mix) -> bool:
        """True if ``mix`` can be screened in time to confirm any mix.

        A resumed search finds the decision in the log, in which all finished trials have their
        duration.
        """
        lines = [line for line in self.log.lines() if self.told.items() <= line.items()]
        key = self.told | {"left_out": asdict(mix)}
        if any(key.items() <= line.items() for line in lines):
            return False
        trials = [(line["seconds"], Mix(**line["mix"])) for line in lines if "mix" in line]
        if any(tried == mix for _, tried in trials):
            return True
        spent = sum(seconds for seconds, _ in trials)
        batch = spent / sum(tried.cost for _, tried in trials)
        left = SCREENED * mix.cost + FOLDS * (NONE.cost + Mix(1).cost)
        if spent + left * batch <= self.minutes * 60:
            return True
        self.log.append(key)
        return False

    def _screen(self, mix: Mix, base: Sequence[npt.NDArray[np.bool_]], weights: Weights) -> Gain:
        folds = [self._trial(SCREEN, fold, mix, weights) for fold in range(SCREENED)]
        differences = [a.astype(float) - b for a, b in zip(folds, base, strict=True)]
        by_image = np.concatenate(differences).mean(axis=1)
        return Gain(mix, float(by_image.mean()), float(by_image.std() / math.sqrt(len(by_image))))

    def _split(
        self, partition: int, fold: int
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Masks ``[N]`` of the images to train on, and of those to test on."""
        generator = stream(partition, "folds", 0, CPU)
        held = torch.randperm(len(self.real), generator=generator).numpy() % FOLDS == fold
        return ~held, held & self.testable

    def _trial(
        self, partition: int, fold: int, mix: Mix, weights: Weights
    ) -> npt.NDArray[np.bool_]:
        """Labels that a classifier of ``mix`` reads right, ``[tested, A]``."""
        key = self.told | {"partition": partition, "fold": fold, "mix": asdict(mix)}
        for line in self.log.lines():
            if key.items() <= line.items():
                self.progress()
                return np.array(line["right"], dtype=np.bool_)
        start = self.clock()
        train, test = self._split(partition, fold)
        if mix == NONE:
            network = self._classifier(partition, fold)
        else:
            chosen = self.real.take(train)
            own = self._classifier(partition, fold) if mix.selection == "hard" else None
            samples = self.sets.of(mix, len(chosen), own, weights)
            network = self.training.fit(chosen, samples, mix.recipe, partition * FOLDS + fold)
        right = self.training.test(network, self.real.take(test)).right
        seconds = round(self.clock() - start, 2)
        self.log.append(key | {"seconds": seconds, "right": right.astype(int).tolist()})
        self.progress()
        return right

    def _classifier(self, partition: int, fold: int) -> FeatureNetwork:
        """Classifier of a fold's real images; trained again after an interruption."""
        if (partition, fold) not in self._own:
            chosen, seed = self.real.take(self._split(partition, fold)[0]), partition * FOLDS + fold
            network = self.training.fit(chosen, self.sets.pool, NONE.recipe, seed)
            self._own[partition, fold] = network
        return self._own[partition, fold]

    def _scale(self) -> float:
        """Share of the usual training with which the search takes ``minutes``, 0.4 to 1.

        It is kept in the log, so that a resumed search continues with the same one.
        """
        for line in self.log.lines():
            if self.told.items() <= line.items() and "scale" in line:
                return float(line["scale"])
        scale = min(1.0, max(MIN_SCALE, self.minutes * 60 / self.seconds()))
        self.log.append(self.told | {"scale": scale})
        return scale

    def seconds(self) -> float:
        """Duration of a search with the usual training, from a few steps of it.

        In units of a step on real images alone; one on as many samples in addition takes two.
        """
        start = time.perf_counter()
        self.sets.pool.take(0, PROBE_SAMPLES)
        sample = (time.perf_counter() - start) / PROBE_SAMPLES
        probe = replace(self.training, min_passes=0, min_steps=PROBE_STEPS)
        few = self.real.take(np.arange(len(self.real)) < MIN_IMAGES)  # hardly any validation
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            probe.fit(few, self.sets.pool, Mix(1).recipe, 0)
        step = (time.perf_counter() - start) / PROBE_STEPS / 2  # half of its images are real
        screened = NONE.cost + sum(mix.cost for mix in self.mixes())
        refined = Mix(1).cost * len(self.refined(NONE))
        batches = SCREENED * (screened + refined) + 3 * FOLDS
        most = max(mix.size(len(self.real)) for mix in self.mixes())
        steps = self.training.steps(len(self.real) * (FOLDS - 1) // FOLDS)
        return batches * steps * step + 3 * most * sample  # a pool twice as large, and a weak set


def simplest(gains: Sequence[Gain]) -> Gain:
    """Gain with the fewest samples among those within one standard error of the best."""
    best = max(gains, key=lambda gain: gain.mean)
    near = [gain for gain in gains if gain.mean >= best.mean - best.error]
    return min(near, key=lambda gain: (gain.mix.ratio, gain.mix.refined, -gain.mean))


def cross_validated(mix: Mix, gains: Sequence[float]) -> Gain:
    """Mean over folds and its standard error.

    Folds share training images, so the usual error would be too small: it is corrected by the
    share of images tested to images trained on (Nadeau and Bengio 2003,
    https://doi.org/10.1023/A:1024068626366, equation 9).
    """
    folds = len(gains)
    return Gain(mix, fmean(gains), math.sqrt(variance(gains) * (1 / folds + 1 / (folds - 1))))
