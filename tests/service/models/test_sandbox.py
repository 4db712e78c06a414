"""Model files that make the sandbox process crash, hang or run out of memory, and its isolation."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import StartupError
from service.models import sandbox
from service.models.sandbox import CheckResult, ModelSandbox
from tests.helpers import dying_sandbox, onnx_files
from tests.helpers.rejected_models import PLAIN, SMALL, TRUE, load, refusal, with_nodes
from tests.helpers.waiting import wait_until


def endless() -> onnx.ModelProto:
    """Model with a loop that does not end."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Identity", ["state"], ["state_out"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, None),
        ],
        [value("go_on_out", TensorProto.BOOL, []), value("state_out", TensorProto.FLOAT, None)],
    )
    loop = helper.make_node("Loop", ["", "true", "latent"], ["changed"], body=body)
    return with_nodes(TRUE, loop)


def test_endless_loop_hits_the_time_limit(tmp_path: Path) -> None:
    said = refusal(tmp_path, endless(), ModelSandbox(seconds=3))
    assert said == "the check did not finish within 3 s"


def test_close_ends_a_running_check(tmp_path: Path) -> None:
    path = onnx_files.put(tmp_path, "tiny", 1, endless())
    checks = ModelSandbox()
    with ThreadPoolExecutor() as pool:
        result = pool.submit(lambda: list(checks.check([path])))
        wait_until(lambda: bool(sandbox_processes()))
        checks.close()
        with pytest.raises(StartupError, match="the service is shutting down"):
            result.result(timeout=30)
    assert not sandbox_processes()


def test_close_ends_a_check_that_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_files.put(tmp_path, "tiny", 1, endless())
    checks = ModelSandbox()
    start = checks._start

    def close_meanwhile() -> subprocess.Popen[str]:
        process = start()
        checks.close()
        return process

    monkeypatch.setattr(checks, "_start", close_meanwhile)
    with pytest.raises(StartupError, match="the service is shutting down"):
        list(checks.check([path]))


def test_model_over_the_memory_limit_is_rejected(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([2**38], dtype=np.int64))
    built = with_nodes(
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ConstantOfShape", ["shape"], ["terabyte"]),
        helper.make_node("ReduceMax", ["terabyte"], ["most"], keepdims=0),
        helper.make_node("Add", ["latent", "most"], ["changed"]),
    )
    assert refusal(tmp_path, built, ModelSandbox(seconds=20))


def sandbox_processes() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and sandbox.WORKER in child.cmdline()
    ]


def test_killed_process_rejects_only_the_file_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "WORKER", dying_sandbox.PROGRAM)
    for version in (1, 2, 3):
        onnx_files.put(tmp_path, "tiny", version, onnx_files.model(PLAIN))
    loaded = load(tmp_path, ModelSandbox(seconds=20))
    assert list(loaded.models["tiny"]) == [1, 3]
    (refused,) = loaded.refused
    assert refused.path == "tiny/2/model.onnx"
    assert "the sandbox process was killed by SIGKILL" in refused.reason
    assert not sandbox_processes()


def test_fifo_and_device_are_rejected(tmp_path: Path) -> None:
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    for number, make in ((2, os.mkfifo), (3, lambda path: path.symlink_to("/dev/zero"))):
        (tmp_path / "tiny" / str(number)).mkdir()
        make(tmp_path / "tiny" / str(number) / "model.onnx")
    loaded = load(tmp_path, ModelSandbox(seconds=20))
    assert list(loaded.models["tiny"]) == [1]
    assert [refused.path for refused in loaded.refused] == [
        "tiny/2/model.onnx",
        "tiny/3/model.onnx",
    ]


def test_file_over_the_size_limit_is_rejected(tmp_path: Path) -> None:
    content = onnx_files.model(PLAIN).SerializeToString()
    onnx_files.put(tmp_path, "tiny", 1, content)
    path = onnx_files.put(tmp_path, "tiny", 2, content)
    os.truncate(path, 1024**4)
    loaded = load(tmp_path, ModelSandbox(max_bytes=1024**2))
    assert list(loaded.models["tiny"]) == [1]
    assert "is larger than the 1 MB that FIGMENT_MAX_MODEL_MB" in loaded.refused[0].reason


class _FileReplacer(ModelSandbox):
    """Changes each version 1 after its check."""

    def check(self, files: Sequence[Path]) -> Generator[CheckResult]:
        for result in super().check(files):
            if result.path.parent.name == "1":
                result.path.write_bytes(result.path.read_bytes() + b"\0")
            yield result


def test_file_changed_after_its_check_is_rejected(tmp_path: Path) -> None:
    said = refusal(tmp_path, onnx_files.model(PLAIN), _FileReplacer())
    assert said.startswith("changed while it was loaded")


def test_verifiers_are_checked_too(tmp_path: Path) -> None:
    model = onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(SMALL))
    evil = onnx_files.model(SMALL)
    evil.graph.node[0].domain = "evil"
    model.with_name("verifier.onnx").write_bytes(evil.SerializeToString())
    loaded = load(tmp_path, ModelSandbox(seconds=20))
    assert loaded.get("tiny").verifier is None
    (refused,) = loaded.refused
    assert refused.path == "tiny/1/verifier.onnx"
    assert "is of 'evil'" in refused.reason


def test_sandbox_environment_has_no_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("FIGMENT_API_KEYS", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    checks = ModelSandbox()
    checks.prepare()
    wait_until(lambda: len(sandbox_processes()) == 1)  # its command line is empty at first
    (child,) = sandbox_processes()
    assert "secret" not in child.environ().values()
    assert child.environ()["TMPDIR"] == str(tmp_path)
    path = onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    assert [result.reason for result in checks.check([path])] == [""]


def test_sandbox_that_does_not_start_is_a_startup_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(
        StartupError, match=r"the model sandbox does not start: .* ended with status 1"
    ):
        load(tmp_path, ModelSandbox(seconds=20))
