"""How long a run will take, measured on a few steps of it."""

from __future__ import annotations

import time

import numpy as np
import torch

from training.config import TrainingConfig
from training.data import Dataset
from training.run import DatasetDescription
from training.trainer import Trainer

WARM_UP = 2
MEASURED = 3


def images_per_second(config: TrainingConfig, dataset: Dataset) -> float:
    """The rate of training, on networks that are thrown away after."""
    trainer = Trainer(config, DatasetDescription.of(dataset, "unknown"))
    few = np.arange(min(len(dataset), config.batch))
    images = torch.from_numpy(dataset.images[few]).to(trainer.device)
    labels = torch.from_numpy(dataset.labels[few]).to(trainer.device)
    for _ in range(WARM_UP):
        trainer.step(images, labels)
    _wait_for(trainer.device)
    began = time.perf_counter()
    for _ in range(MEASURED):
        trainer.step(images, labels)
    _wait_for(trainer.device)
    return MEASURED * config.batch / (time.perf_counter() - began)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
