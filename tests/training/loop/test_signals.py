from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from tests.helpers.server import ROOT
from tests.helpers.small_runs import Start, trainer_of, training
from tests.helpers.waiting import wait_until
from training.data import Dataset
from training.errors import Interrupted
from training.loop.loop import train
from training.loop.trainer import Trainer
from training.runs.run import Run

STOPPED = "train", "--name", "tiny", "--width", "4", "--batch", "16"


def assert_stopped(folder: Path, said: str) -> None:
    """The run has a checkpoint after whole steps, and names the command that resumes it."""
    assert "stopping after this step" in said
    assert f"figment resume {folder}" in said
    trainer = trainer_of(Run.open(folder))
    trainer.load(folder / "checkpoint.safetensors")
    assert trainer.shown > 0
    assert trainer.shown % 16 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_a_run_with_a_checkpoint(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    folder, step = tmp_path / "run", Trainer.step

    def interrupted(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        if trainer.shown == 48 and folder.exists():  # and not before, as steps are timed
            signal.raise_signal(number)
        return step(trainer, *batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    done = training(*STOPPED, "--data", source, "--out", folder)
    assert done.exit_code == 128 + number  # so that `train && export` exports nothing
    assert_stopped(folder, done.stderr)


def default_sigint() -> None:
    """Undo SIG_IGN, which a child inherits from a shell that runs the tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_signal_stops_a_run_in_another_process(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "run"
    options = ("--data", source, "--tick-kimg", "0.016", "--out", str(folder))
    with subprocess.Popen(
        [sys.executable, "-m", "training", *STOPPED, *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_sigint,
    ) as process:
        wait_until(lambda: (folder / "log.jsonl").exists() or process.poll() is not None)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert_stopped(folder, said)


def test_signal_in_the_last_step_is_ignored(
    start: Start, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(kimg=0.032)
    step = Trainer.step

    def last(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        if trainer.shown == 16:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, *batch)

    monkeypatch.setattr(Trainer, "step", last)
    train(run, faces)
    assert [line["shown"] for line in run.log.lines()] == [32]
    assert run.sample_grid(32).exists()


def test_signal_in_the_step_of_a_snapshot_does_not_skip_it(
    start: Start, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, step = start(), Trainer.step

    def interrupted(trainer: Trainer, *batch: Tensor) -> dict[str, Tensor]:
        if trainer.shown == 80:  # the step to 96, where a snapshot is due
            signal.raise_signal(signal.SIGINT)
        return step(trainer, *batch)

    with monkeypatch.context() as patched, pytest.raises(Interrupted, match="after 96 images"):
        patched.setattr(Trainer, "step", interrupted)
        train(run, faces)
    train(run, faces)
    grids = sorted(path.stem for path in (run.folder / "samples").iterdir())
    assert grids == [f"{shown:09d}" for shown in (96, 192)]
