"""``make-dataset`` on a Ray cluster of two nodes, in a network of its own: see ``test_ray.py``.

    unshare -rn bash -c 'ip link set lo up && exec python -m tests.helpers.datasets_on_ray FOLDER'

FOLDER has ``plan.yaml`` and ``models``. Leaves ``killed-workers`` and ``ended-drivers`` there, and
says how many of each it has ended.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

TASK = "ray::_build_shard"
"""Ray's name for a process that builds a file."""


def start(folder: Path, out: str, address: str) -> subprocess.Popen[bytes]:
    """The command in FOLDER, which is another than that of the cluster."""
    command = [sys.executable, "-m", "service", "make-dataset", "plan.yaml"]
    command += ["--out", out, "--models", "models", "--ray", address]
    return subprocess.Popen(command, cwd=folder)


def made(folder: Path, out: str) -> int:
    return len(list((folder / out).glob("tiny-*")))


def wait(folder: Path, out: str, files: int, driver: subprocess.Popen[bytes]) -> None:
    """Wait until so many files exist, or the driver has ended."""
    while made(folder, out) < files and driver.poll() is None:
        time.sleep(0.02)


def kill_workers(folder: Path, address: str) -> int:
    """Kill a process in the middle of a file."""
    out, killed = "killed-workers", 0
    driver = start(folder, out, address)
    wait(folder, out, 3, driver)
    while driver.poll() is None and not kill_one():
        time.sleep(0.02)
    killed += driver.poll() is None
    assert driver.wait(120) == 0
    return killed


def kill_one() -> bool:
    """Kill a process that builds a file; True if there was one."""
    for process in psutil.process_iter(["cmdline"]):
        if TASK in " ".join(process.info["cmdline"] or ()):
            process.kill()
            return True
    return False


def end_drivers(folder: Path, address: str) -> int:
    """Kill one, interrupt another, and let the last come to its end."""
    out, ended, moments = "ended-drivers", 0, random.Random(3)
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 1)):
        driver = start(folder, out, address)
        wait(folder, out, made(folder, out) + 2, driver)
        time.sleep(moments.uniform(0, 0.3))
        driver.send_signal(number)
        ended += driver.wait(30) == status
    assert start(folder, out, address).wait(120) == 0
    return ended


def main(folder: Path) -> None:
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    try:
        ended = kill_workers(folder, cluster.address), end_drivers(folder, cluster.address)
    finally:
        cluster.shutdown()
    sys.stdout.write(f"{ended[0]} {ended[1]}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
