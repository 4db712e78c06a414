"""The walls of the house: what importing a part of the service loads, and what it must not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.server import ROOT

RUNTIMES = {"onnxruntime", "onnx", "torch"}
SERVER_SIDE = RUNTIMES | {"deflate", "fastapi", "uvicorn", "pyarrow", "ray"}


def loaded_by(module: str) -> set[str]:
    """The top-level packages in memory after ``module`` was imported in a fresh process."""
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("service.cluster.proxy", SERVER_SIDE),
        ("service.cluster.autoscaling", SERVER_SIDE),
        ("service.client", SERVER_SIDE),
        ("service.client.fetch", SERVER_SIDE),
        ("service.datasets.plan_file", SERVER_SIDE),
        ("service.api.middleware.gateway", RUNTIMES),
        ("service.server.server", RUNTIMES),
        ("service.app", {"torch", "ray", "pyarrow"}),
    ],
)
def test_importing_loads_no_more_than_needed(module: str, forbidden: set[str]) -> None:
    assert not loaded_by(module) & forbidden
