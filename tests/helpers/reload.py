"""Models folder that tests change, and reloads of the server on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.server import Server

LABELLED = manifest(attribute("eyes", "red", "blue"), name="other")


def weights(seed: int, name: str = "tiny") -> onnx.ModelProto:
    """Model with weights that depend on ``seed``."""
    return changed(onnx_files.model(manifest(name=name)), seed)


def changed(built: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """``built``, changed in place: its weights in another order."""
    (matrix,) = (each for each in built.graph.initializer if each.name == "matrix")
    values = np.random.default_rng(seed).permutation(numpy_helper.to_array(matrix))
    matrix.CopyFrom(numpy_helper.from_array(values, "matrix"))
    return built


def place(folder: Path, name: str, version: int, content: bytes | onnx.ModelProto) -> None:
    """Write a version elsewhere in the folder, then rename it into place."""
    path = onnx_files.put(folder, name, version, b"")
    path.unlink()
    ready = onnx_files.put(folder, name, ".coming", content)
    ready.rename(path)
    ready.parent.rmdir()


def fill(folder: Path) -> Path:
    """Reset ``folder`` to version 1 of the models ``tiny`` and ``other``."""
    shutil.rmtree(folder, ignore_errors=True)
    place(folder, "tiny", 1, weights(1))
    place(folder, "other", 1, onnx_files.model(LABELLED))
    return folder


def reload(server: Server) -> dict[str, Any]:
    """Report of ``POST /models/reload``."""
    answer = server.client.post("/models/reload")
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def answer(server: Server, **body: Any) -> dict[str, Any]:
    """Answer of ``POST /generate`` for one image of ``tiny``, seed 1."""
    found = server.client.post("/generate", json={"seed": 1, "model": "tiny"} | body)
    assert found.status_code == 200, found.text
    return dict(found.json())


def refused(report: dict[str, Any]) -> dict[str, str]:
    """Reasons of rejected models by path."""
    return {item["path"]: item["reason"] for item in report["refused"]}
