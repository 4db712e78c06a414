"""Models with nodes that the service must reject, and the reason that it gives."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.core.manifest import Manifest
from service.errors import InvalidModel
from service.inference.session import SessionFactory
from service.models.model_set import ModelSet
from service.models.repository import load_models
from service.models.sandbox import CheckResult, ModelSandbox, one_line
from service.models.sandbox_worker import FileCheck
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files

PLAIN = manifest()
SMALL = manifest(attribute("eyes", "red", "blue")).model_copy(update={"height": 2, "width": 3})
"""So few weights that most of the file is structure."""
TRUE = helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True)))


class InProcessSandbox(ModelSandbox):
    """Checks of the sandbox in this process: a child process takes 0.5 s to start."""

    def check(self, files: Sequence[Path]) -> Generator[CheckResult]:
        check = FileCheck(self.max_bytes)
        yield from (self._result(check, path) for path in files)

    def _result(self, check: FileCheck, path: Path) -> CheckResult:
        try:
            return CheckResult(path, check(path))
        except InvalidModel as error:
            return CheckResult(path, None, one_line(str(error)))


def load(folder: Path, sandbox: ModelSandbox | None = None) -> ModelSet:
    """Load a models folder; its files are checked in this process without ``sandbox``."""
    return load_models(folder, SessionFactory("cpu"), {}, sandbox=sandbox or InProcessSandbox())


def refusal(
    folder: Path, built: bytes | onnx.ModelProto, sandbox: ModelSandbox | None = None
) -> str:
    """Reason why ``built`` is rejected. Asserts that a valid version after it is served."""
    onnx_files.put(folder, "tiny", 1, built)
    onnx_files.put(folder, "tiny", 2, onnx_files.model(PLAIN))
    loaded = load(folder, sandbox)
    assert list(loaded.models["tiny"]) == [2]
    (refused,) = loaded.refused
    assert refused.path == "tiny/1/model.onnx"
    return refused.reason


def with_nodes(*nodes: onnx.NodeProto, described: Manifest = PLAIN) -> onnx.ModelProto:
    """Model whose latent passes through ``nodes`` first, from ``latent`` to ``changed``."""
    built = onnx_files.model(described)
    first = built.graph.node[0]
    first.input[0] = "changed"
    kept = list(built.graph.node)
    del built.graph.node[:]
    built.graph.node.extend([*nodes, *kept])
    return built


def graph(node: onnx.NodeProto, *, inputs: tuple[str, ...] = ()) -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [node],
        "inner",
        [value(name, TensorProto.FLOAT, None) for name in inputs],
        [value(name, TensorProto.FLOAT, None) for name in node.output],
    )
