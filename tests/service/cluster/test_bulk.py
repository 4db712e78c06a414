"""``make-dataset --ray`` on the cluster: killed tasks and drivers leave the same files."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.helpers.make_dataset import build, read
from tests.helpers.server import MODELS, ROOT, environment
from tests.helpers.waiting import wait_until
from tests.service.cluster.conftest import Cluster

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason='Ray is missing: pip install "figment[ray]"'
    ),
]

PLAN = {"model": "anime-faces", "version": 2, "n": 960, "seed": 3, "images_per_file": 80}
TASK = "ray::_build_shard"
"""Ray's name for a process that builds a file."""


def test_killed_tasks_and_drivers_leave_the_same_files(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    (tmp_path / "models").symlink_to(MODELS)

    def driver() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service", "make-dataset", "plan.yaml"]
        command += ["--out", "out", "--models", "models", "--ray", cluster.nodes.address]
        return subprocess.Popen(
            command,
            cwd=tmp_path,  # not that of the cluster
            env=environment()
            | {
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_AUTH_MODE": "disabled",
                "PYTHONPATH": str(ROOT),
            },
        )

    def kill_task() -> bool:
        for process in psutil.Process(cluster.nodes.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # zombies, too
                if TASK in " ".join(process.cmdline()):
                    process.kill()
                    return True
        return False

    for files, number, status in ((2, signal.SIGKILL, -signal.SIGKILL), (4, signal.SIGTERM, 1)):
        with driver() as running:
            wait_until(lambda: len(list(out.glob("anime-faces-*"))) >= files)  # noqa: B023
            running.send_signal(number)
            assert running.wait(30) == status
    with driver() as running:
        wait_until(kill_task)
        assert running.wait(120) == 0
    build(PLAN, MODELS, tmp_path / "local")
    assert read(out) == read(tmp_path / "local")
