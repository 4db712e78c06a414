"""A run whose snapshots no longer get better ends, at the same snapshot however it got there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.small_runs import create_run, some
from training.data import Dataset
from training.loop.loop import train
from training.runs.ranking import Line, plateaued


def scores(*distances: float) -> list[Line]:
    """Snapshots every 100 images, with these Frechet distances."""
    return [
        {"shown": 100 * number, "frechet": distance, "pyramid_16": 1.0}
        for number, distance in enumerate(distances, start=1)
    ]


@pytest.mark.parametrize(
    ("distances", "patience", "ends"),
    [
        ((9, 5, 6, 7), 0.2, True),
        ((9, 5, 6), 0.2, False),
        ((9, 5, 6, 4), 0.2, False),
        ((9, 5, 6, 7, 8, 9), 0, False),
        ((), 0.2, False),
    ],
    ids=["no better", "may be better", "better", "no patience", "no scores"],
)
def test_run_ends_when_no_snapshot_is_better(
    distances: tuple[float, ...], patience: float, ends: bool
) -> None:
    assert plateaued(scores(*distances), patience) == ends


def test_ended_run_has_nothing_to_resume(portraits: Dataset, tmp_path: Path) -> None:
    # 1. A run that learns nothing, because steps of this size change no weight.
    faces = some(portraits, 160, "hair")
    run = create_run(tmp_path / "run", faces, lr=1e-30, kimg=0.96, patience_kimg=0.128)
    train(run, faces, stop_on_failure=False)
    lines = run.scores.lines()
    assert run.has_plateaued and run.is_finished
    assert not plateaued(lines[:-1], run.config.patience_kimg)
    assert lines[-1]["shown"] == run.log.lines()[-1]["shown"] < 960
    # 2. It is resumed.
    before = run.checkpoint.read_bytes(), run.log.path.read_bytes()
    train(run, faces, stop_on_failure=False)
    assert (run.checkpoint.read_bytes(), run.log.path.read_bytes()) == before
