"""A server with two tiny models, shared by all tests of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.http as triton

from service.inference.model import Model, load_model
from service.inference.session import SessionFactory
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.server import Server, serve
from tests.helpers.tensors import triton_client

EYES = manifest(attribute("eyes", "red", "blue"), name="faces")
"""Latents of 8 numbers, conditions of 2, images of 16x16x3."""


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_files.put(folder, "plain", 1, onnx_files.model(manifest(name="plain")))
    for version in (1, 2):
        onnx_files.put(folder, "faces", version, onnx_files.model(EYES))
    return folder


@pytest.fixture(scope="package")
def small(models: Path) -> Iterator[Server]:
    options = ("--max-images", "64", "--max-wait", "30")
    with serve("--models", str(models), *options) as running:
        yield running


@pytest.fixture(scope="package")
def model(models: Path) -> Model:
    return load_model(models / "faces" / "2" / "model.onnx", SessionFactory("cpu"))


@pytest.fixture
def client(small: Server) -> Iterator[triton.InferenceServerClient]:
    with triton_client(small) as found:
        yield found
