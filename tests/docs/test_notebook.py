"""The notebook in examples/ runs from its first cell to its last."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.ports import free_port
from tests.helpers.server import ROOT, environment

NOTEBOOK = ROOT / "examples" / "whole-way.ipynb"


@pytest.mark.server
@pytest.mark.slow
def test_notebook(tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    program = "\n".join("".join(each["source"]) for each in cells if each["cell_type"] == "code")
    small = {"TINY": "1", "OMP_NUM_THREADS": "1", "FIGMENT_PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment() | small | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"real images: \d+\.\d% right", done.stdout)) == 2
