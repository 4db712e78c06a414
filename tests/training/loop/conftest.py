from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.small_runs import Start, run_of, some
from training.config import TrainingConfig
from training.data import Dataset
from training.runs.run import Run


@pytest.fixture
def faces(portraits: Dataset) -> Dataset:
    """64 avatars of 16x16, with all labels."""
    return some(portraits, 64)


@pytest.fixture
def start(tmp_path: Path, faces: Dataset) -> Start:
    """Create a small run: 12 steps, a tick every other, a snapshot every sixth."""

    def create(folder: str = "run", **options: object) -> Run:
        settings: dict[str, object] = {
            "data": "avatars",
            "name": "tiny",
            "kimg": 0.192,
            "batch": 16,
            "width": 4,
            "latent_size": 8,
            "mirror": True,
            "tick_kimg": 0.032,
            "snapshot_kimg": 0.096,
            "device": "cpu",
            "precision": "float32",
            "hold_out": 0,
        }
        config = TrainingConfig.model_validate(settings | options)
        return run_of(tmp_path / folder, config, faces)

    return create
