"""Start-up: settings, checks, and errors as a sentence on stderr, never a traceback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import onnxruntime as ort
import pytest

from service.inference import session
from service.settings import Settings
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.ports import free_port
from tests.helpers.server import MODELS, ROOT, command, environment, serve
from tests.helpers.startup import refuse
from tests.helpers.waiting import wait_until

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


def test_service_never_imports_torch() -> None:
    code = (
        "import sys, service.app, service.__main__\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'training', 'onnx'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_service_never_imports_ray_or_fsspec() -> None:
    code = (
        "import sys, service.app, service.server.server, service.__main__\n"
        "import service.models.object_store\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'ray', 'fsspec'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_missing_ray_is_an_error_with_an_install_command() -> None:
    code = "import sys; sys.modules['ray'] = None; import service.cluster.deployment"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(
        'ImportError: Ray is missing: pip install "figment[ray]"'
    )


@pytest.mark.parametrize("package", ["service", "training"])
def test_telemetry_of_onnx_runtime_is_off(package: str) -> None:
    """ONNX Runtime reads the variable when it is loaded; both packages set it before."""
    code = (
        f"import os, sys, {package}\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "assert 'onnxruntime' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


def test_compose_passes_every_setting_that_the_image_does_not_set() -> None:
    names = {f"FIGMENT_{name.upper()}" for name in Settings.model_fields}
    passed = set(re.findall(r"- (FIGMENT_\w+)", (ROOT / "docker-compose.yml").read_text()))
    image = set(re.findall(r"(FIGMENT_\w+)=", (ROOT / "Dockerfile").read_text()))
    assert passed == names - image


@pytest.mark.parametrize(
    "file", ["Dockerfile", "Makefile", "docs/systemd.md", "benchmarks/soak.py"]
)
def test_every_start_returns_freed_memory(file: str) -> None:
    """The soak measures what users start."""
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        assert f"{name}=1048576" in (ROOT / file).read_text()


@pytest.mark.server
def test_rejected_model_does_not_stop_the_others(tmp_path: Path) -> None:
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


@pytest.mark.server
def test_option_overrides_environment_variable(tmp_path: Path) -> None:
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


@pytest.mark.server
def test_startup_logs_device_threads_and_reason() -> None:
    with serve("--models", str(MODELS), "--threads", "1") as server:
        (line,) = [line for line in server.log if "device" in line]
        assert (
            "device cpu (requested auto, but CUDA is not available: " in line
            or "device cuda (requested auto" in line
        )
        assert "threads 1" in line
        wait_until(lambda: any("open http://localhost:" in line for line in server.log))


@pytest.mark.server
@pytest.mark.parametrize(
    ("options", "settings", "error"),
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
def test_invalid_setting_is_an_error(
    options: list[str], settings: dict[str, str], error: str
) -> None:
    assert error in refuse(*options, **settings)


@pytest.mark.server
def test_empty_models_folder_is_an_error(tmp_path: Path) -> None:
    assert "no model to serve" in refuse("--models", str(tmp_path))


@pytest.mark.server
@pytest.mark.skipif(
    session.CUDA in ort.get_available_providers(), reason="CUDA may work with this wheel"
)
def test_cuda_without_cuda_is_an_error() -> None:
    assert "FIGMENT_DEVICE is cuda, but CUDA is not available" in refuse("--device", "cuda")


@pytest.mark.server
@WORKERS
def test_port_in_use_is_an_error(plain_models: Path, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = ("--models", str(plain_models), "--port", port, "--workers", workers)
        assert "ddress already in use" in refuse(*options)


@pytest.mark.server
@WORKERS
@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_change_nothing(
    plain_models: Path, workers: str, closed: str
) -> None:
    """Unless they are opened, a socket gets their descriptors, and libuv aborts at exit."""
    port = str(free_port())
    options = ("--models", str(plain_models), "--workers", workers, "--port", port)
    run = ["sh", "-c", f'exec "$0" "$@" {closed}', *command(*options)]
    with subprocess.Popen(run, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}"))
        process.terminate()
    assert process.returncode == 0


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.server
@WORKERS
@pytest.mark.parametrize("after", [0.2, 0.6, 1.0, 1.4])
def test_interrupted_start_exits_with_status_0(
    plain_models: Path, workers: str, after: float
) -> None:
    """No request was accepted, so there is no error to report."""
    process = subprocess.Popen(
        command("--models", str(plain_models), "--workers", workers),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: handles_sigterm(process.pid))
    time.sleep(after)
    process.send_signal(signal.SIGHUP)
    process.terminate()
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr


def handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.findall(r"SigCgt:\s+(\w+)", status)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("installed", "error"),
    [
        ([], "Error: no ONNX Runtime is installed; install figment[cpu]"),
        (["onnxruntime", "onnxruntime-gpu"], "Error: both onnxruntime and onnxruntime-gpu are"),
    ],
)
def test_exactly_one_onnx_runtime_must_be_installed(installed: list[str], error: str) -> None:
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
    assert error in done.stderr
    assert "Traceback" not in done.stderr
