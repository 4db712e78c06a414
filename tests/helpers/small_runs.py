"""Runs that train in a second, on avatars of 16x16, and the command line on them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from training.cli import main
from training.config import TrainingConfig
from training.data import Dataset
from training.loop.trainer import Trainer
from training.runs.run import DatasetDescription, Run

# Forks of a server that has imported PyTorch, and what a run imports later.
FORKS = multiprocessing.get_context("forkserver")
PLOTS = "matplotlib.backends.backend_agg"
FORKS.set_forkserver_preload(["tests.helpers.small_runs", PLOTS])

CPU = torch.device("cpu")
Start = Callable[..., Run]
"""Type of the fixture ``start``: (folder name, **options) to a run."""


def some(faces: Dataset, count: int, *names: str) -> Dataset:
    """The first ``count`` of ``faces`` with the labels ``names``, or all if there are none."""
    known = [attribute.name for attribute in faces.attributes]
    columns = [known.index(name) for name in names or known]
    return replace(
        faces,
        images=faces.images[:count],
        labels=faces.labels[:count, columns],
        attributes=tuple(faces.attributes[column] for column in columns),
    )


def small_config(**options: object) -> TrainingConfig:
    """Configuration of a run of 8 steps, which are 256 images, with a snapshot every 64."""
    settings: dict[str, object] = {
        "data": "avatars",
        "name": "small",
        "hold_out": 0.3,
        "kimg": 0.256,
        "batch": 32,
        "width": 4,
        "latent_size": 8,
        "tick_kimg": 0.032,
        "snapshot_kimg": 0.064,
        "device": "cpu",
        "precision": "float32",
    }
    return TrainingConfig.model_validate(settings | options)


def create_run(folder: Path, dataset: Dataset, **options: object) -> Run:
    """Create the run of ``small_config`` in ``folder``."""
    return run_of(folder, small_config(**options), dataset)


def run_of(folder: Path, config: TrainingConfig, dataset: Dataset) -> Run:
    """Create a run in ``folder``."""
    run = Run.plan(folder, config, DatasetDescription.of(dataset, "MIT"))
    run.create()
    return run


def trainer_of(run: Run) -> Trainer:
    """Trainer at the start of ``run``."""
    return Trainer(run.config, run.dataset)


def data(faces: Dataset) -> tuple[Tensor, Tensor]:
    """Images and labels as ``Trainer.step`` takes them."""
    return torch.from_numpy(faces.images), torch.from_numpy(faces.labels)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """True if both hold the same names with bit-identical tensors."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def training(*arguments: object) -> Result:
    """Run ``python -m training`` in this process: a new one would import PyTorch again.

    Raises errors that the command line does not print as a sentence.
    """
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def training_process(
    output: Path, *arguments: object, environment: dict[str, str]
) -> ForkServerProcess:
    """Start ``python -m training`` in a process of its own; appends its output to ``output``."""
    process = FORKS.Process(target=_command, args=(output, [*map(str, arguments)], environment))
    process.start()
    return process


def _command(output: Path, arguments: list[str], environment: dict[str, str]) -> None:
    redirect_output(output)
    os.environ |= environment
    main(arguments)


def redirect_output(output: Path) -> None:
    """Append stdout and stderr of this process to ``output`` from now on."""
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
