"""Killed workers and drivers, signals, a full disk: a resumed build leaves the same files."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from service.datasets import local_executor
from service.datasets.build import open_build
from service.datasets.plan_file import read_plan
from service.datasets.shard_builder import BuildSpec, OnProgress, ShardResult, ShardTask
from service.datasets.storage import LocalStorage
from service.models.sandbox import ModelSandbox
from tests.helpers.make_dataset import LARGE, SMALL, Command, read, workers
from tests.helpers.server import default_sigint


def test_workers_that_are_killed(command: Command, undisturbed: dict[str, bytes]) -> None:
    process, killed = command.start(LARGE, "--workers", "2"), 0
    for files in (2, 5, 7):
        command.wait(files, process)
        for worker in workers(process.pid)[:1]:
            worker.kill()
            killed += 1
    assert process.wait(120) == 0, process.communicate()[1]
    assert killed == 3
    process.communicate()
    assert read(command.out) == undisturbed


def test_a_worker_that_is_killed_when_it_has_nothing_to_do(
    models: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    made: list[int] = []
    found: list[int] = []

    def killing(
        recipe: BuildSpec, jobs: deque[ShardTask], tell: OnProgress
    ) -> Iterator[ShardResult]:
        for number, done in enumerate(local_executor.run(recipe, jobs, tell, processes=1)):
            if number in (0, 4):
                (worker,) = multiprocessing.active_children()
                worker.kill()
                worker.join()
            yield done

    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(LARGE))
    out = tmp_path / "out"
    with open_build(
        read_plan(path), LocalStorage(out), models, "cpu", ModelSandbox(), lambda message: None
    ) as dataset:
        dataset.run(killing, found.append, made.append)
    assert read(out) == undisturbed
    assert sum(made) == 12_000 and not found


def test_a_driver_that_is_killed_and_started_again(
    command: Command, undisturbed: dict[str, bytes]
) -> None:
    moments = random.Random(3)
    for _ in range(4):
        before = len(command.made())
        process = command.start(LARGE, "--workers", "2")
        command.wait(before + 1, process)
        time.sleep(moments.uniform(0, 0.2))
        left = workers(process.pid)
        assert left
        process.kill()
        process.communicate()
        psutil.wait_procs(left, 10)
        assert not any(worker.is_running() for worker in left)
    command.run(LARGE)
    assert read(command.out) == undisturbed
    assert "12,000 images" in command.run(LARGE)  # and once more does nothing
    assert read(command.out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_says_what_is_kept(
    command: Command, undisturbed: dict[str, bytes], number: signal.Signals
) -> None:
    process = command.start(
        LARGE, "--workers", "2", start_new_session=True, preexec_fn=default_sigint
    )
    command.wait(3, process)
    left = workers(process.pid)
    os.killpg(process.pid, number)  # as a terminal does
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "interrupted" in told and "Traceback" not in told
    assert "of 12,000 images are kept: run the same command to resume" in told
    assert not any(worker.is_running() for worker in left)
    kept = json.loads((command.out / "manifest.json").read_text())
    assert {file["name"] for file in kept["files"]} <= set(read(command.out))
    assert not list(command.out.glob(".*.tmp"))
    command.run(LARGE)
    assert read(command.out) == undisturbed


def test_a_file_that_costs_processes_is_told(command: Command) -> None:
    process = command.start(SMALL | {"n": 10**6, "images_per_file": 10**6}, "--workers", "1")
    seen = set()
    while process.poll() is None:
        for worker in workers(process.pid):
            if worker.pid not in seen:
                seen.add(worker.pid)
                time.sleep(0.5)
                worker.kill()
        time.sleep(0.02)
    _, told = process.communicate()
    assert "3 processes were lost to tiny-00000.tar; the last was killed by SIGKILL" in told
    assert len(seen) == 3


def test_a_full_disk(command: Command, undisturbed: dict[str, bytes]) -> None:
    def a_megabyte_a_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    told = command.run(LARGE, fails=True, preexec_fn=a_megabyte_a_file)
    assert "cannot write" in told and "File too large" in told
    assert not list(command.out.glob(".*.tmp")) and not command.made()
    command.run(LARGE)
    assert read(command.out) == undisturbed
