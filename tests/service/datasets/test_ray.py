"""``make-dataset --ray`` on a cluster of two nodes, and without Ray."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.make_dataset import LARGE, SMALL, Command, read
from tests.helpers.server import ROOT, environment


def test_without_ray(command: Command) -> None:
    """As where the extra is not installed."""
    hidden = command.folder / "hidden" / "ray"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('it is not here')")
    command.variables = {"PYTHONPATH": str(hidden.parent)}
    told = command.run(SMALL, "--ray", "auto", fails=True)
    assert 'pip install "figment[ray]"' in told
    command.run(SMALL)  # which does without


@pytest.mark.ray
def test_on_a_ray_cluster(models: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """Two nodes: with processes killed, and with drivers ended and started again."""
    pytest.importorskip("ray", reason='this takes Ray: pip install "figment[ray]"')
    alone = "unshare -rn bash -c 'ip link set lo up && exec \"$@\"' -"
    if subprocess.run([*shlex.split(alone), "true"], capture_output=True).returncode:
        pytest.skip("Ray would listen beyond this machine: a network of its own takes unshare")
    (tmp_path / "models").symlink_to(models)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(LARGE))
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [*shlex.split(alone), sys.executable, "-m", "tests.helpers.datasets_on_ray", str(tmp_path)],
        cwd=tmp_path / "elsewhere",  # that of the cluster
        env=environment()
        | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-2:] == ["1", "2"]
    assert read(tmp_path / "killed-workers") == undisturbed
    assert read(tmp_path / "ended-drivers") == undisturbed
