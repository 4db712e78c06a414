"""Killed workers and drivers, signals, a full disk: a resumed build leaves the same files."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import threading
from collections import deque
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from service.datasets import local_executor
from service.datasets.shard_builder import BuildSpec, ShardResult, ShardTask
from service.errors import DatasetError
from tests.helpers.make_dataset import LARGE, SMALL, Command, build, read, workers
from tests.helpers.server import default_sigint


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_workers_are_replaced(
    models: Path, tmp_path: Path, undisturbed: dict[str, bytes], processes: int
) -> None:
    """With one, it has nothing to do; with two, the other is in the middle of a file."""

    def killing(spec: BuildSpec, tasks: deque[ShardTask]) -> Generator[ShardResult]:
        for number, done in enumerate(local_executor.run(spec, tasks, processes=processes)):
            if number in (0, 4):
                for worker in multiprocessing.active_children():
                    worker.kill()
                    worker.join()
            yield done

    assert build(LARGE, models, tmp_path / "out", killing) == [400] * 12
    assert read(tmp_path / "out") == undisturbed


def test_file_that_loses_its_processes_three_times_is_an_error(
    models: Path, tmp_path: Path
) -> None:
    started: set[int | None] = set()

    def killing(spec: BuildSpec, tasks: deque[ShardTask]) -> Generator[ShardResult]:
        def kill() -> None:
            while not over.wait(0.02):
                for worker in multiprocessing.active_children():
                    started.add(worker.pid)
                    worker.kill()
                    worker.join()

        over = threading.Event()
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield from local_executor.run(spec, tasks, processes=1)
        finally:
            over.set()
            killer.join()

    with pytest.raises(DatasetError, match=r"lost 3 times while tiny-00000.tar was built, most"):
        build(SMALL, models, tmp_path / "out", killing)
    assert len(started) == 3


@pytest.mark.slow
def test_killed_driver_is_resumed(command: Command, undisturbed: dict[str, bytes]) -> None:
    for _ in range(2):
        before = len(command.made())
        process = command.start(LARGE, "--workers", "2")
        command.wait(before + 1, process)
        left = workers(process.pid)
        assert left
        process.kill()
        process.communicate()
        psutil.wait_procs(left, 10)
        assert not any(worker.is_running() for worker in left)
    command.run(LARGE)
    assert read(command.out) == undisturbed
    assert "4,800 images" in command.run(LARGE)  # and once more does nothing
    assert read(command.out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_says_what_is_kept(
    command: Command, undisturbed: dict[str, bytes], number: signal.Signals
) -> None:
    process = command.start(
        LARGE, "--workers", "2", start_new_session=True, preexec_fn=default_sigint
    )
    command.wait(2, process)
    left = workers(process.pid)
    os.killpg(process.pid, number)  # as a terminal does
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "interrupted" in told and "Traceback" not in told
    assert "of 4,800 images are kept: run the same command to resume" in told
    assert not any(worker.is_running() for worker in left)
    kept = json.loads((command.out / "manifest.json").read_text())
    assert {file["name"] for file in kept["files"]} <= set(read(command.out))
    assert not list(command.out.glob(".*.tmp"))
    command.build(LARGE)
    assert read(command.out) == undisturbed


def test_a_full_disk(command: Command, undisturbed: dict[str, bytes]) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    told = command.run(LARGE, fails=True, preexec_fn=small_files)
    assert "cannot write" in told and "File too large" in told
    assert not list(command.out.glob(".*.tmp")) and not command.made()
    command.build(LARGE)
    assert read(command.out) == undisturbed
