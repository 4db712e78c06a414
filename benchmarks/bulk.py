"""``make-dataset`` beside the runtime beneath it: processes of this machine, and a Ray cluster.

    python -m benchmarks.bulk [--rounds 3] [--images 4000]
    unshare -rn bash -c 'ip link set lo up && exec .venv/bin/python -m benchmarks.bulk --ray'

In turn, round by round, ratios within a round: the model in ONNX Runtime and the PNG encoder on a
thread for each core, without anything else (``ceiling.py``, which writes JSON as well); the whole
command; the same on a cluster of one node, which is up already. What a command takes that makes one
image, its start, is told apart. The model is an untrained DCGAN of width 64 for 64x64 images.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import yaml

from benchmarks.serve import PYTHON, ROOT, runtime_alone, untrained
from service import cpus

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def seconds(folder: Path, images: int, *options: str) -> float:
    """Of one command, start and all."""
    plan = {"model": "bench", "n": images, "seed": 3, "images_per_file": max(images // 16, 1)}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [PYTHON, "-m", "service", "make-dataset", str(folder / "plan.yaml")]
    command += ["--models", str(folder), *options]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        started = time.perf_counter()
        subprocess.run([*command, "--out", out], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - started


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
        bare: list[float] = []
        starts: dict[str, list[float]] = {way: [] for way in ways}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            bare.append(ceiling("bulk", 5))
            for way, options in ways.items():
                start = seconds(folder, 1, *options)
                starts[way].append(start)
                rates[way].append((images - 1) / (seconds(folder, images, *options) - start))
    print(f"{'':<12}{'images/s':>10}{'of the runtime':>16}{'from .. to':>14}{'start, s':>10}")
    print(f"{'runtime':<12}{statistics.median(bare):10.0f}")
    for way, found in rates.items():
        ratios = sorted(rate / most for rate, most in zip(found, bare, strict=True))
        spread, start = f"{ratios[0]:.2f} .. {ratios[-1]:.2f}", statistics.median(starts[way])
        middle = statistics.median(ratios)
        print(f"{way:<12}{statistics.median(found):10.0f}{middle:16.2f}{spread:>14}{start:10.1f}")


if __name__ == "__main__":
    main()
