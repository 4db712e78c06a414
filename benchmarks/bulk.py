"""``make-dataset`` with local processes and on a Ray cluster, compared with the runtime alone.

    python -m benchmarks.bulk [--rounds 3] [--images 4000]
    unshare -rn bash -c 'ip link set lo up && exec .venv/bin/python -m benchmarks.bulk --ray'

Each round measures, in order: the model in ONNX Runtime and the PNG encoder on one thread per core
(``ceiling.py``, which also writes JSON); the command; the command on a running cluster of one node.
Ratios are taken within a round. Start-up, measured as a command for one image, is subtracted and
reported separately. The model is an untrained DCGAN of width 64 for 64x64 images.

The ratio is of images per CPU second of all processes, including Ray's own, so other load on the
machine does not change it.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import click
import psutil
import yaml

from benchmarks.serve import PYTHON, ROOT, runtime_alone, untrained
from service.core import cpus

SECONDS = 5.0
OFTEN = 0.1
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class Cost(NamedTuple):
    wall: float
    cores: float
    """CPU seconds of all processes that this benchmark has started."""

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cores - other.cores)


class Meter:
    """Sums the CPU time of child processes; polls, since Ray reports none for ended ones."""

    def __init__(self) -> None:
        self._spent: dict[psutil.Process, float] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> Cost:
        with self._lock:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self._spent[process] = times.user + times.system
            return Cost(time.perf_counter(), sum(self._spent.values()))

    def _watch(self) -> None:
        while True:
            self.now()
            time.sleep(OFTEN)


def cost(meter: Meter, folder: Path, images: int, *options: str) -> Cost:
    """Cost of one command, including its start-up."""
    plan = {"model": "bench", "n": images, "seed": 3, "images_per_file": max(images // 16, 1)}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [PYTHON, "-m", "service", "make-dataset", str(folder / "plan.yaml")]
    command += ["--models", str(folder), *options]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        before = meter.now()
        subprocess.run([*command, "--out", out], cwd=ROOT, check=True, capture_output=True)
        return meter.now() - before


@click.command()
@click.option("--rounds", default=3)
@click.option("--images", default=4000)
@click.option("--ray", "with_ray", is_flag=True, help="Start a cluster of one node as well.")
def main(rounds: int, images: int, with_ray: bool) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = untrained(folder)
        ways: dict[str, list[str]] = {"processes": []}
        if with_ray:
            os.environ.update(QUIET)
            from ray.cluster_utils import Cluster

            node = {"num_cpus": cpus.available(), "include_dashboard": False}
            cluster = Cluster(
                initialize_head=True, head_node_args=node | {"object_store_memory": 200_000_000}
            )
            stack.callback(cluster.shutdown)
            ways["ray"] = ["--ray", cluster.address]
        ceiling = stack.enter_context(runtime_alone(model))
        ceiling("bulk", 1)
        meter = Meter()
        rates: dict[str, list[tuple[float, float]]] = {way: [] for way in ("runtime", *ways)}
        starts: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            before = meter.now()
            rate = ceiling("bulk", SECONDS)
            rates["runtime"].append((rate, rate * SECONDS / (meter.now() - before).cores))
            for way, options in ways.items():
                start = cost(meter, folder, 1, *options)
                made = cost(meter, folder, images, *options) - start
                starts[way].append(start.wall)
                rates[way].append(((images - 1) / made.wall, (images - 1) / made.cores))
    print(f"{'':<12}{'images/s':>10}{'a core-second':>16}{'of the runtime':>16}{'start, s':>10}")
    for way, found in rates.items():
        wall, core = (statistics.median(column) for column in zip(*found, strict=True))
        pairs = zip(found, rates["runtime"], strict=True)
        ratio = statistics.median(ours / bare for (_, ours), (_, bare) in pairs)
        began = f"{statistics.median(starts[way]):10.1f}" if way in starts else ""
        print(f"{way:<12}{wall:10.0f}{core:16.0f}{ratio:16.2f}{began}")


if __name__ == "__main__":
    main()
