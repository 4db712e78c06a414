"""A build that is killed ends, by the same command, with the same model, bit for bit."""

from __future__ import annotations

import os
import random
import signal
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_runs import FORKS, redirect_output
from tests.training.loop.test_resume import computing
from tests.training.pipeline.conftest import arguments
from training.cli import main
from training.pipeline import build as pipeline

pytestmark = pytest.mark.slow

KILLS = 4
"""Random kills. 20, by hand, ended alike as well."""
RENAMED = (
    "reals.png",
    "000000128.safetensors",
    "checkpoint.safetensors",
    "report.md",
    "build.json",
    "1",  # the exported version
)
"""Files at whose appearance the process is killed, in this order."""


def build(folder: Path, source: str, killed_by: str | None, options: dict[str, object]) -> None:
    """Build in ``folder``; SIGKILL itself when the file ``killed_by`` appears."""
    torch.set_num_threads(1)
    redirect_output(folder / "output.txt")
    rename = Path.replace

    def replace(path: Path, target: Any) -> Path:
        renamed = rename(path, target)
        if Path(target).name == killed_by:
            os.kill(os.getpid(), signal.SIGKILL)
        return renamed

    pipeline.MIN_COVERAGE = 0  # a run of 8 steps covers nothing
    Path.replace = replace  # type: ignore[assignment, method-assign]
    main([str(each) for each in arguments(source, folder, **options)])


def started(
    folder: Path,
    source: str,
    options: dict[str, object],
    killed_by: str | None = None,
) -> ForkServerProcess:
    folder.mkdir(exist_ok=True)
    process = FORKS.Process(target=build, args=(folder, source, killed_by, options))
    process.start()
    return process


def finished(folder: Path, source: str, options: dict[str, object]) -> dict[str, bytes]:
    """Build to the end; content of the model, and of the run that must not depend on kills."""
    process = started(folder, source, options)
    process.join(300)
    assert process.exitcode == 0, (folder / "output.txt").read_text()
    model, run = folder / "models" / "small", folder / "run"
    assert [path.name for path in model.iterdir()] == ["1"]
    assert not list(run.rglob("*.tmp"))
    kept = [
        *(model / "1").iterdir(),
        *map(run.joinpath, ("checkpoint.safetensors", "scores.jsonl")),
    ]
    return {path.name: path.read_bytes() for path in kept}


def test_build_killed_in_every_phase_ends_with_the_same_model(source: str, tmp_path: Path) -> None:
    for name in RENAMED:
        process = started(tmp_path / "killed", source, {}, name)
        process.join(300)
        assert process.exitcode == -signal.SIGKILL, (tmp_path / "killed/output.txt").read_text()
    whole = finished(tmp_path / "whole", source, {})
    assert finished(tmp_path / "killed", source, {}) == whole


def test_build_killed_at_random_moments_ends_with_the_same_model(
    source: str, tmp_path: Path
) -> None:
    free: dict[str, object] = {"attributes": "none"}  # a verifier would take half of the time
    # 1. A build that is not killed.
    process = started(tmp_path / "whole", source, free)
    seconds = computing(process)
    process.join(300)
    whole = finished(tmp_path / "whole", source, free)
    # 2. Builds killed at random moments; should one end before, there is a further one.
    chance, kills, folders = random.Random(0), 0, [tmp_path / "0"]
    while kills < KILLS:
        process = started(folders[-1], source, free)
        computing(process, chance.uniform(0, seconds / 2))
        process.kill()
        process.join(300)
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            folders.append(tmp_path / str(len(folders)))

    # Result: each ends with the same files.
    for folder in folders:
        assert finished(folder, source, free) == whole
