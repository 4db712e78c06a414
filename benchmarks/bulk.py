"""Throughput of ``make-dataset``, local and on Ray, compared with the runtime alone.

    python -m benchmarks.bulk [--rounds 3] [--images 4000]
    unshare -rn bash -c 'ip link set lo up && exec .venv/bin/python -m benchmarks.bulk --ray'

Needs PyTorch, and Ray with ``--ray``, which listens on all addresses, hence the separate network
namespace; takes a minute or two on two cores. Each round measures, in order: the model in ONNX
Runtime and the PNG encoder on one thread per core (``ceiling.py``, which also writes JSON); the
command; the command on a running cluster of one node. Start-up, measured as a command for one
image, is subtracted and reported separately. The model is an untrained DCGAN of width 64 for 64x64
images.

Ratios are taken within a round, of images per CPU second of all processes including Ray's own, so
that other load on the machine does not change them.
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

from benchmarks.serve import PYTHON, ROOT, runtime_alone, untrained_model
from service.core import cpus

CEILING_SECONDS = 5.0
POLL_SECONDS = 0.1
"""At most this much CPU time per core is missed when a process ends."""
RAY_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
RAY_OBJECT_STORE_BYTES = 200_000_000
"""Enough, since tasks return no images; Ray's default is 30 % of the memory."""


class Cost(NamedTuple):
    """Wall-clock and CPU time, in seconds."""

    wall: float
    cpu: float
    """Sum over all processes that this benchmark has started."""

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


class CpuMeter:
    """Sums the CPU time of child processes; polls, since Ray reports none for ended ones."""

    def __init__(self) -> None:
        self._cpu_seconds: dict[psutil.Process, float] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._poll, daemon=True).start()

    def now(self) -> Cost:
        """Current time, and CPU time since the start of the benchmark."""
        with self._lock:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self._cpu_seconds[process] = times.user + times.system
            return Cost(time.perf_counter(), sum(self._cpu_seconds.values()))

    def _poll(self) -> None:
        while True:
            self.now()
            time.sleep(POLL_SECONDS)


def command_cost(meter: CpuMeter, folder: Path, images: int, *options: str) -> Cost:
    """Cost of one ``make-dataset`` command, including its start-up."""
    plan = {"model": "bench", "n": images, "seed": 3, "images_per_file": max(images // 16, 1)}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [PYTHON, "-m", "service", "make-dataset", str(folder / "plan.yaml")]
    command += ["--models", str(folder), *options]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        before = meter.now()
        subprocess.run([*command, "--out", out], cwd=ROOT, check=True, capture_output=True)
        return meter.now() - before


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--images", default=4000, show_default=True, help="Images in each set.")
@click.option("--ray", "with_ray", is_flag=True, help="Also measure a Ray cluster of one node.")
def main(rounds: int, images: int, with_ray: bool) -> None:
    """Compare make-dataset with the runtime alone."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = untrained_model(folder)
        options_by_executor: dict[str, list[str]] = {"processes": []}
        if with_ray:
            os.environ.update(RAY_ENVIRONMENT)
            from ray.cluster_utils import Cluster

            node = {"num_cpus": cpus.available(), "include_dashboard": False}
            cluster = Cluster(
                initialize_head=True,
                head_node_args=node | {"object_store_memory": RAY_OBJECT_STORE_BYTES},
            )
            stack.callback(cluster.shutdown)
            options_by_executor["ray"] = ["--ray", cluster.address]
        ceiling = stack.enter_context(runtime_alone(model))
        ceiling("bulk", 1)  # warm-up
        meter = CpuMeter()
        # Images per second and per CPU second, one pair per round.
        rates: dict[str, list[tuple[float, float]]] = {
            name: [] for name in ("runtime", *options_by_executor)
        }
        start_seconds: dict[str, list[float]] = {name: [] for name in options_by_executor}
        for _ in range(rounds):
            before = meter.now()
            rate = ceiling("bulk", CEILING_SECONDS).images_per_second
            rates["runtime"].append((rate, rate * CEILING_SECONDS / (meter.now() - before).cpu))
            for name, options in options_by_executor.items():
                start_up = command_cost(meter, folder, 1, *options)
                cost = command_cost(meter, folder, images, *options) - start_up
                start_seconds[name].append(start_up.wall)
                rates[name].append(((images - 1) / cost.wall, (images - 1) / cost.cpu))
    print(f"{'':<12}{'images/s':>10}{'/core-second':>16}{'of the runtime':>16}{'start, s':>10}")
    for name, pairs in rates.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(
            ours / runtime for (_, ours), (_, runtime) in zip(pairs, rates["runtime"], strict=True)
        )
        start = f"{statistics.median(start_seconds[name]):10.1f}" if name in start_seconds else ""
        print(f"{name:<12}{wall:10.0f}{cpu:16.0f}{ratio:16.2f}{start}")


if __name__ == "__main__":
    main()
