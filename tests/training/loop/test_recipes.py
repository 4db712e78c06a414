from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.ablation import BASE, RECIPES
from tests.helpers.small_runs import some
from training.config import TrainingConfig
from training.data import Dataset
from training.loop.trainer import Trainer
from training.runs.run import DatasetDescription


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_of_the_ablation_trains_both_networks(recipe: str, portraits: Dataset) -> None:
    faces = some(portraits, 64, "eyes", "glasses")
    small = {"data": "-", "name": "x", "kimg": 1, "width": 4, "batch": 16, "device": "cpu"}
    options = BASE | RECIPES[recipe] | {"d_width": None} | small
    config = TrainingConfig.model_validate(options)
    trainer = Trainer(config, DatasetDescription.of(faces, "MIT"))
    before = [weight.clone() for weight in weights(trainer)]
    for _ in range(2):
        trainer.step(torch.from_numpy(faces.images), torch.from_numpy(faces.labels))
    assert trainer.is_finite()
    pairs = zip(before, weights(trainer), strict=True)
    assert not any(torch.equal(was, now) for was, now in pairs)


def weights(trainer: Trainer) -> list[Tensor]:
    """Weights without biases: a relativistic loss ignores the bias of the logit."""
    networks = (trainer.generator, trainer.discriminator, trainer.ema)
    return [p for network in networks for p in network.parameters() if p.dim() > 1]
