"""Estimates of a run's speed: from a few timed steps, and from its log."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import harmonic_mean

import numpy as np
import torch

from training.config import TrainingConfig
from training.core import distributed
from training.data import Dataset
from training.loop.trainer import Trainer
from training.runs.run import DatasetDescription

WARM_UP_STEPS = 2
MIN_TIMED_STEPS = 3
RECENT_TICKS = 5
"""Log lines whose mean speed is taken to last."""


def images_per_second(config: TrainingConfig, dataset: Dataset) -> float:
    """Training speed in images per second without snapshots. Collective.

    Trains temporary networks. Times whole periods of ``d_steps`` and ``penalty_every``, since the
    steps within a period differ in cost.
    """
    trainer = Trainer(config, DatasetDescription.of(dataset, "unknown"))
    few = np.arange(min(len(dataset), config.batch))
    images = torch.from_numpy(dataset.images[few]).to(trainer.device)
    labels = torch.from_numpy(dataset.labels[few]).to(trainer.device)
    for _ in range(WARM_UP_STEPS):
        trainer.step(images, labels)
    _synchronise(trainer.device)
    began = time.perf_counter()
    period = math.lcm(config.d_steps, config.penalty_every if config.is_penalised else 1)
    steps = period * math.ceil(MIN_TIMED_STEPS / period)
    for _ in range(steps):
        trainer.step(images, labels)
    _synchronise(trainer.device)
    rate = steps * config.batch / (time.perf_counter() - began)
    # The mean over all processes, so that all take the same decision.
    return float(distributed.mean(torch.tensor(rate, device=trainer.device)))


def recent_rate(ticks: Sequence[Mapping[str, float]]) -> float:
    """Mean images per second of the newest ``ticks``, which are at least one, without snapshots."""
    return harmonic_mean([line["images_per_second"] for line in ticks[-RECENT_TICKS:]])


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
