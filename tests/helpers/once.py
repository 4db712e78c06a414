"""Files that are made once for all workers of pytest-xdist."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Path ``name`` that ``make`` has written, in this worker or another. Do not change it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # shared by all workers of a run
    path = base / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            unfinished = factory.mktemp("once") / name
            make(unfinished)
            unfinished.rename(path)
    return path
