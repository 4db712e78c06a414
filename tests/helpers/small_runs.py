"""Runs that train in a second or two, on avatars of 16x16, and the command line on them."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from click.testing import CliRunner, Result

from training.cli import main
from training.config import TrainingConfig
from training.data import Dataset, avatars
from training.runs.run import DatasetDescription, Run

# Processes that need not import PyTorch, nor what it imports itself with the first step.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.helpers.small_runs", "torch._dynamo"])


def small_faces(count: int) -> Dataset:
    """Avatars of 16x16, labelled with eyes and glasses."""
    drawn = avatars.draw(count)
    return Dataset(
        "avatars",
        drawn.images[:, ::4, ::4].copy(),
        drawn.labels[:, [1, 4]],
        (drawn.attributes[1], drawn.attributes[4]),
    )


def small_config(**options: object) -> TrainingConfig:
    """Of a run of 4,000 images, a snapshot every 1,000."""
    settings: dict[str, object] = {
        "data": "avatars",
        "name": "small",
        "hold_out": 0.3,
        "kimg": 4,
        "batch": 32,
        "width": 4,
        "latent_size": 8,
        "tick_kimg": 0.5,
        "snapshot_kimg": 1,
        "device": "cpu",
        "precision": "float32",
    }
    return TrainingConfig.model_validate(settings | options)


def create_run(folder: Path, dataset: Dataset, **options: object) -> Run:
    run = Run.plan(folder, small_config(**options), DatasetDescription.of(dataset, "MIT"))
    run.create()
    return run


def training(*arguments: object) -> Result:
    """``python -m training``, here: a process of its own would import PyTorch anew.

    An error that it does not tell in a sentence is raised.
    """
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def training_process(
    output: Path, *arguments: object, environment: dict[str, str]
) -> ForkServerProcess:
    """The same in a process of its own; what it says goes to the end of ``output``."""
    process = FORKS.Process(target=_command, args=(output, [*map(str, arguments)], environment))
    process.start()
    return process


def _command(output: Path, arguments: list[str], environment: dict[str, str]) -> None:
    say_into(output)
    os.environ |= environment
    main(arguments)


def say_into(output: Path) -> None:
    """What this process says from now on goes to the end of ``output``."""
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
