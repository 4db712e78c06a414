"""How the service starts, and how it refuses to: a sentence on stderr, never a traceback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from service.inference import session
from service.settings import Settings
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.server import MODELS, ROOT, environment, serve
from tests.helpers.startup import refuse


def test_service_never_imports_torch() -> None:
    code = (
        "import sys, service.app, service.__main__\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'training', 'onnx'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_one_machine_never_pays_for_ray() -> None:
    code = (
        "import sys, service.app, service.server.server, service.__main__\n"
        "import service.models.object_store\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'ray', 'fsspec'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_without_ray_the_cluster_says_what_to_install() -> None:
    code = "import sys; sys.modules['ray'] = None; import service.cluster.deployment"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(
        'ImportError: Ray is missing: pip install "figment[ray]"'
    )


def test_onnx_runtime_reports_to_nobody() -> None:
    """It reads the variable as it is loaded, so it must be set before, by both packages."""
    for package in ("service.inference.session", "training.export.export"):
        code = f"import {package}, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


def test_compose_passes_on_every_setting_that_the_image_does_not_set() -> None:
    names = {f"FIGMENT_{name.upper()}" for name in Settings.model_fields}
    passed = set(re.findall(r"- (FIGMENT_\w+)", (ROOT / "docker-compose.yml").read_text()))
    image = set(re.findall(r"(FIGMENT_\w+)=", (ROOT / "Dockerfile").read_text()))
    assert passed == names - image


def test_a_model_that_is_refused_does_not_keep_the_others_from_serving(tmp_path: Path) -> None:
    eyes = attribute("eyes", "red", "blue")
    onnx_files.put(tmp_path, "good", 1, onnx_files.model(manifest(eyes, name="good")))
    cut = onnx_files.model(manifest(name="cut")).SerializeToString()[:1000]
    onnx_files.put(tmp_path, "cut", 1, cut)
    with serve("--models", str(tmp_path)) as server:
        answer = server.client.get("/models").json()
        assert [model["name"] for model in answer["models"]] == ["good"]
        assert [refused["path"] for refused in answer["refused"]] == ["cut/1/model.onnx"]
        assert any("refused cut/1/model.onnx" in line for line in server.log)
        # With no unconditional model, /generate takes the conditional one.
        assert server.client.post("/generate", json={}).json()["model"] == "good"


def test_settings_come_from_the_environment_and_options_win(tmp_path: Path) -> None:
    for name in ("a", "b"):
        onnx_files.put(tmp_path, name, 1, onnx_files.model(manifest(name=name)))
    os.environ["FIGMENT_DEFAULT_MODEL"] = "b"
    try:
        assert Settings().default_model == "b"
        assert Settings(default_model="a").default_model == "a"
    finally:
        del os.environ["FIGMENT_DEFAULT_MODEL"]
    with serve("--models", str(tmp_path), "--default-model", "b", "--max-images", "2") as server:
        assert server.client.post("/generate", json={}).json()["model"] == "b"
        assert "at most 2" in server.client.post("/generate", json={"n": 3}).json()["detail"]


def test_startup_says_in_a_line_what_it_chose_and_why() -> None:
    with serve("--models", str(MODELS), "--threads", "1") as server:
        (line,) = [line for line in server.log if "device" in line]
        assert (
            "device cpu (requested auto, but CUDA is not available: " in line
            or "device cuda (requested auto" in line
        )
        assert "threads 1" in line


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (["--models", "nowhere"], {}, "the models folder nowhere does not exist"),
        ([], {"FIGMENT_MODELS": "/nowhere"}, "the models folder /nowhere does not exist"),
        (["--port", "http"], {}, "--port: Input should be a valid integer"),
        (
            [],
            {"FIGMENT_THREADS": "0"},
            "FIGMENT_THREADS: Input should be greater than or equal to 1",
        ),
        (["--device", "tpu"], {}, "--device: Input should be 'auto', 'cuda' or 'cpu'"),
        (["--devise", "cpu"], {}, "--device"),
        (["--default-model", "nope"], {}, "'nope' cannot be the default unconditional model"),
    ],
)
def test_settings_that_cannot_be_followed(
    options: list[str], settings: dict[str, str], said: str
) -> None:
    assert said in refuse(*options, **settings)


def test_an_empty_models_folder(tmp_path: Path) -> None:
    assert "no model to serve" in refuse("--models", str(tmp_path))


@pytest.mark.skipif(
    session.CUDA in ort.get_available_providers(), reason="CUDA may work with this wheel"
)
def test_cuda_is_refused_where_it_cannot_be_had() -> None:
    assert "FIGMENT_DEVICE is cuda, but CUDA is not available" in refuse("--device", "cuda")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "address already in use" in refuse("--port", str(taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ([], "Error: no ONNX Runtime is installed; install figment[cpu]"),
        (["onnxruntime", "onnxruntime-gpu"], "Error: both onnxruntime and onnxruntime-gpu are"),
    ],
)
def test_exactly_one_runtime_wheel_is_asked_for(installed: list[str], said: str) -> None:
    pretend = f"""
import importlib.metadata as metadata, runpy, sys
def version(name, found=metadata.version):
    if name.startswith("onnxruntime") and name not in {installed}:
        raise metadata.PackageNotFoundError(name)
    return "1.31.1" if name.startswith("onnxruntime") else found(name)
metadata.version = version
sys.modules["onnxruntime"] = None  # to import it is an ImportError
sys.argv = ["service"]
runpy.run_module("service", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", pretend], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
