"""The recipe of `faces` learns: from nothing to recognisable avatars in 15 s of one core."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.small_runs import CPU, data
from training.config import TrainingConfig
from training.data import Dataset, avatars
from training.evaluation import features
from training.evaluation.snapshot_scores import Scorer
from training.loop.trainer import Trainer
from training.presets import PRESETS
from training.runs.run import DatasetDescription

SIDE, IMAGES, KIMG = 16, 1500, 24


def small_avatars() -> Dataset:
    """Avatars of 16x16 with the colour of their hair."""
    drawn = avatars.draw(IMAGES)
    box = Image.Resampling.BOX
    images = [
        np.asarray(Image.fromarray(image).resize((SIDE, SIDE), box)) for image in drawn.images
    ]
    (hair,) = (a for a, each in enumerate(drawn.attributes) if each.name == "hair")
    return replace(
        drawn,
        images=np.stack(images),
        labels=drawn.labels[:, [hair]],
        attributes=(drawn.attributes[hair],),
    )


@pytest.mark.slow
def test_faces_are_learnt() -> None:
    """Seeds 0 to 2 end at a distance of 10 to 14, with a coverage of 0.47 to 0.51 and 98 % of the
    colours right. A learning rate of a tenth stays at a distance of 305, and a run without the
    mismatched pairs and the label head at 49, with 0.06 and 41 %."""
    faces = small_avatars()
    trained, held_out = faces.split(0.25)
    network = features.train_network(trained, mirror=True, device=CPU)
    options = PRESETS["faces"] | {"width": 16, "kimg": KIMG, "ema_halflife_kimg": 2}
    config = TrainingConfig(data="avatars", name="x", device="cpu", **options)
    trainer = Trainer(config, DatasetDescription.of(faces, "MIT"))
    before = Scorer(held_out, network, (), trained).measure(trainer.ema)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while trainer.shown < KIMG * 1000:
            trainer.step(*data(trained))
    finally:
        torch.set_num_threads(threads)
    trainer.recalibrate_batch_norm()
    after = Scorer(held_out, network, (), trained).measure(trainer.ema)
    assert before.frechet > 300
    assert after.frechet < 30
    assert after.coverage > 0.3
    assert after.labels_right is not None and after.labels_right > 0.85
