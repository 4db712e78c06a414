"""How long a run will take, measured on a few steps of it."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from training.config import TrainingConfig
from training.core import distributed
from training.data import Dataset
from training.loop.trainer import Trainer
from training.runs.run import DatasetDescription

WARM_UP = 2
FEWEST = 3


def images_per_second(config: TrainingConfig, dataset: Dataset) -> float:
    """The rate of training, snapshots apart, on networks that are thrown away after.

    Not all steps are alike, so whole periods of them are timed.
    """
    trainer = Trainer(config, DatasetDescription.of(dataset, "unknown"))
    few = np.arange(min(len(dataset), config.batch))
    images = torch.from_numpy(dataset.images[few]).to(trainer.device)
    labels = torch.from_numpy(dataset.labels[few]).to(trainer.device)
    for _ in range(WARM_UP):
        trainer.step(images, labels)
    _wait_for(trainer.device)
    began = time.perf_counter()
    period = math.lcm(config.d_steps, config.penalty_every if config.is_penalised else 1)
    steps = period * math.ceil(FEWEST / period)
    for _ in range(steps):
        trainer.step(images, labels)
    _wait_for(trainer.device)
    rate = steps * config.batch / (time.perf_counter() - began)
    # One figure for all processes, since they act on it.
    return float(distributed.mean(torch.tensor(rate, device=trainer.device)))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
