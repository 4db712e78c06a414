"""The ``make-dataset`` command in a process of its own, and its files."""

from __future__ import annotations

import contextlib
import gc
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import psutil
import webdataset
import yaml
from click.testing import CliRunner

from service.cli.make_dataset import make_dataset
from service.core.manifest import Attribute
from service.datasets.build import Execute, open_build
from service.datasets.plan_file import PlanFile, read_plan
from service.datasets.shard_builder import BuildSpec, ShardBuilder, ShardResult, ShardTask
from service.datasets.storage import LocalStorage
from service.models.sandbox import ModelSandbox
from tests.conftest import attribute
from tests.helpers.server import ROOT, environment

SMALL: dict[str, Any] = {"model": "tiny", "n": 100, "seed": 3, "label": ["red", "blue"]}
LARGE = SMALL | {"n": [3600, 1200], "offset": 5, "images_per_file": 400}
COLOURS = attribute("colour", "red", "blue")
SIZES = Attribute(name="size", values=("small", "large"), frequencies=(0.9, 0.1))


class Command:
    """``make-dataset`` with a plan, into a folder or URL of its own."""

    def __init__(self, models: Path, folder: Path) -> None:
        self.models = models
        self.folder = folder
        self.out = folder / "out"
        self.variables: dict[str, str] = {}

    def start(
        self, plan: dict[str, Any], *arguments: str, out: str = "", **options: Any
    ) -> subprocess.Popen[str]:
        path = self.folder / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        command = [sys.executable, "-m", "service", "make-dataset", str(path)]
        return subprocess.Popen(
            [*command, "--out", out or str(self.out), "--models", str(self.models), *arguments],
            cwd=ROOT,
            env=environment() | self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(
        self, plan: dict[str, Any], *arguments: str, fails: bool = False, **options: Any
    ) -> str:
        """Output of the command, with one worker unless ``arguments`` say otherwise."""
        process = self.start(plan, "--workers", "1", *arguments, **options)
        said, told = process.communicate(timeout=120)
        assert (process.returncode != 0) == fails, said + told
        assert "Traceback" not in told
        return said + told

    def build(self, plan: dict[str, Any]) -> None:
        """Make the set in this process: what is there counts, not how it was made."""
        build(plan, self.models, self.out)

    def refuse(self, plan: dict[str, Any], *arguments: str, out: str = "") -> str:
        """Output of the command in this process, where it must fail."""
        path = self.folder / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        options = ["--out", out or str(self.out), "--models", str(self.models), *arguments]
        handler = signal.getsignal(signal.SIGTERM)
        try:
            result = CliRunner(env=self.variables).invoke(make_dataset, [str(path), *options])
        finally:
            signal.signal(signal.SIGTERM, handler)
        assert result.exit_code == 1, result.output
        return result.output

    def wait(self, files: int, process: subprocess.Popen[str]) -> None:
        """Wait until so many files exist, or the command has ended."""
        while len(self.made()) < files and process.poll() is None:
            time.sleep(0.01)

    def made(self) -> list[Path]:
        """Files that are there."""
        return sorted(self.out.glob("tiny-*"))


def in_this_process(spec: BuildSpec, tasks: deque[ShardTask]) -> Generator[ShardResult]:
    """Executor without worker processes."""
    builder = ShardBuilder(spec)
    while tasks:
        result = builder.run(tasks.popleft())
        assert isinstance(result, ShardResult), result
        yield result


def nothing(plan: PlanFile) -> dict[str, int]:
    """Counts that the classes of a plan's folder lack, for plans without one."""
    raise AssertionError(plan.like)


def build(
    plan: dict[str, Any], models: Path, out: Path, execute: Execute = in_this_process
) -> list[int]:
    """Build a set in this process, or with another executor; return the images of each file."""
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(plan))
    made: list[int] = []
    with open_build(
        *(read_plan(path, nothing), LocalStorage(out), models, "cpu", ModelSandbox()),
        lambda message: None,
    ) as dataset:
        dataset.run(execute, made.append, made.append)
    return made


def read(folder: Path) -> dict[str, bytes]:
    """Files of a set by path, unfinished ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def load(shards: Iterable[str]) -> list[dict[str, Any]]:
    """Images and labels as a loader reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves files open
        samples = list(webdataset.WebDataset(list(shards), shardshuffle=False).decode("rgb8"))
        gc.collect()
    return samples


def workers(driver: int) -> list[psutil.Process]:
    """The processes that make files."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            child
            for child in psutil.Process(driver).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
    return []
