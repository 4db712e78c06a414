"""Resumed runs equal uninterrupted ones, whatever ended them; what fails costs no checkpoint."""

from __future__ import annotations

import contextlib
import math
import random
import resource
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.small_runs import FORKS, redirect_output, some
from training.config import TrainingConfig
from training.data import Dataset
from training.loop.loop import train
from training.runs.run import DatasetDescription, Run

pytestmark = pytest.mark.slow

KILLS = 20
STEPS = 40


@pytest.fixture
def faces(portraits: Dataset) -> Dataset:
    """160 avatars of 16x16 with two attributes."""
    return some(portraits, 160, "eyes", "glasses")


def lay_out(folder: Path, faces: Dataset) -> Run:
    """A small run with everything in it that draws at random or keeps state."""
    config = TrainingConfig.model_validate(
        {
            "data": "avatars",
            "name": "tiny",
            "hold_out": 0.3,
            "kimg": STEPS * 16 / 1000,
            "batch": 16,
            "network": "dcgan-mnist",
            "width": 4,
            "latent_size": 8,
            "mirror": True,
            "augment": "geometric,noise",
            "augment_target": 0.3,
            "consistency_real": 1,
            "label_weight_end": 0.1,
            "d_norm": "chain",
            "lecam_weight": 0.1,
            "d_width": 6,
            "last_block": "blurred",
            "d_band": True,
            "r1_gamma": 0.1,
            "penalty_every": 2,
            "minibatch": "stddev",
            "g_condition": "norm",
            "label_dropout": 0.1,
            "label_ramp_kimg": 0.3,
            "ema_sigmas": "0.05,0.1",
            "tick_kimg": 0.032,
            "snapshot_kimg": 0.16,
            "device": "cpu",
        }
    )
    run = Run.plan(folder, config, DatasetDescription.of(faces, "MIT"))
    run.create()
    return run


def go_on(folder: Path, faces: Dataset, largest_file: int | None = None) -> None:
    """Train a run on, as a process of its own does; its output goes to the run's folder."""
    torch.set_num_threads(1)
    redirect_output(folder / "output.txt")
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond it is an error, no signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    train(Run.open(folder), faces, stop_on_failure=False)


def started(*arguments: object) -> ForkServerProcess:
    process = FORKS.Process(target=go_on, args=arguments)
    process.start()
    return process


def computing(process: ForkServerProcess, at_most: float = math.inf) -> float:
    """Wait until ``process`` ends or has computed for ``at_most`` seconds; for how many it has.

    Of processor time: what else the machine does changes nothing.
    """
    computed, end = 0.0, time.monotonic() + 600
    with contextlib.suppress(psutil.NoSuchProcess):
        watched = psutil.Process(process.pid)
        while process.is_alive() and computed < at_most:
            assert time.monotonic() < end
            process.join(0.005)
            times = watched.cpu_times()
            computed = times.user + times.system
    return computed


def kept(run: Run) -> tuple[dict[str, list[float]], object, list[str]]:
    """Content that must not depend on the history of a run."""
    weights = {name: value.tolist() for name, value in load_file(run.checkpoint).items()}
    snapshots = sorted(path.name for path in (run.folder / "snapshots").iterdir())
    shown = [line["shown"] for line in run.log.lines()]
    return weights, (run.scores.lines(), shown), snapshots


def test_run_killed_twenty_times_equals_an_uninterrupted_run(
    tmp_path: Path, faces: Dataset
) -> None:
    # 1. An uninterrupted run.
    whole = lay_out(tmp_path / "whole", faces)
    process = started(whole.folder, faces)
    seconds = computing(process)
    process.join(120)
    assert process.exitcode == 0, (whole.folder / "output.txt").read_text()

    # 2. The same run, killed at 20 random times; should it end before, a further one.
    chance, kills, runs = random.Random(0), 0, [lay_out(tmp_path / "0", faces)]
    while kills < KILLS:
        process = started(runs[-1].folder, faces)
        computing(process, chance.uniform(0, seconds / 3))
        process.join(chance.uniform(0, 0.02))  # it may be waiting for the disk
        process.kill()
        process.join(120)
        if process.exitcode == 0:
            runs.append(lay_out(tmp_path / str(len(runs)), faces))
        kills += process.exitcode == -signal.SIGKILL
    process = started(runs[-1].folder, faces)
    process.join(120)
    assert process.exitcode == 0

    # Result: weights, optimizer states, averages, scores and snapshots are the same to the bit.
    for run in runs:
        assert kept(run) == kept(whole)
        assert not list(run.folder.rglob("*.tmp"))


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path, faces: Dataset) -> None:
    # 1. A run has a checkpoint, and is stopped.
    run = lay_out(tmp_path / "run", faces)
    process = started(run.folder, faces)
    while not run.checkpoint.exists():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join(120)
    good = run.checkpoint.read_bytes()
    # 2. Resumed, it cannot write as much as a checkpoint takes.
    process = started(run.folder, faces, len(good) // 2)
    process.join(120)

    # Result: it ends with an error; the checkpoint is what it was, and nothing half-written stays.
    assert process.exitcode == 1
    assert "File too large" in (run.folder / "output.txt").read_text()
    assert run.checkpoint.read_bytes() == good
    assert not list(run.folder.rglob("*.tmp"))
    # 3. With room again, it goes on to the end.
    process = started(run.folder, faces)
    process.join(120)
    assert process.exitcode == 0
    assert load_file(run.checkpoint)
    assert np.array([line["shown"] for line in run.log.lines()])[-1] == STEPS * 16
