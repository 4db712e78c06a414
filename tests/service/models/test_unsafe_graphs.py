"""Operators, functions, weights and formats that the graph check rejects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.inference.session import SessionFactory
from tests.helpers import onnx_files
from tests.helpers.rejected_models import PLAIN, TRUE, graph, refusal, with_nodes

EVIL = helper.make_node("Exfiltrate", ["latent"], ["out"], domain="evil")


def test_custom_operator_is_rejected(tmp_path: Path) -> None:
    built = with_nodes(helper.make_node("Exfiltrate", ["latent"], ["changed"], domain="evil"))
    assert "'Exfiltrate' is of 'evil'; only standard ONNX operators" in refusal(tmp_path, built)


def test_operator_of_the_microsoft_domain_is_rejected(tmp_path: Path) -> None:
    built = with_nodes(helper.make_node("Gelu", ["latent"], ["changed"], domain="com.microsoft"))
    built.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "'Gelu' is of 'com.microsoft'" in refusal(tmp_path, built)


def test_runtime_operator_in_the_standard_domain_is_rejected(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.ones(8, dtype=np.float32), "scale")
    built = with_nodes(
        helper.make_node("SimplifiedLayerNormalization", ["latent", "scale"], ["changed"])
    )
    built.graph.initializer.append(scale)
    assert "'SimplifiedLayerNormalization' is of ''" in refusal(tmp_path, built)


def test_operators_in_subgraphs_are_checked(tmp_path: Path) -> None:
    fine = helper.make_node("Identity", ["latent"], ["out"])
    branches = {"then_branch": graph(fine), "else_branch": graph(EVIL)}
    built = with_nodes(TRUE, helper.make_node("If", ["true"], ["changed"], **branches))
    assert "'Exfiltrate' is of 'evil'" in refusal(tmp_path, built)


@pytest.mark.parametrize(("domain", "name"), [("mine", "Mine"), ("com.microsoft", "QuickGelu")])
def test_model_local_functions_are_rejected(tmp_path: Path, domain: str, name: str) -> None:
    """ONNX Runtime has its own operator named like the second, and would run that."""
    built = with_nodes(helper.make_node(name, ["latent"], ["changed"], domain=domain))
    built.opset_import.append(helper.make_opsetid(domain, 1))
    opset = list(built.opset_import)
    fine = helper.make_node("Identity", ["latent"], ["out"])
    built.functions.append(helper.make_function(domain, name, ["latent"], ["out"], [fine], opset))
    assert "only standard ONNX operators" in refusal(tmp_path, built)


def test_unused_functions_are_rejected(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    opset = list(built.opset_import)
    fine = helper.make_node("Identity", ["latent"], ["out"])
    built.functions.append(helper.make_function("mine", "Mine", ["latent"], ["out"], [fine], opset))
    assert "it defines a function, 'Mine'" in refusal(tmp_path, built)


def test_ort_format_is_rejected(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "converted")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(onnx_files.model(PLAIN).SerializeToString(), options)
    content = (tmp_path / "converted").read_bytes()
    (tmp_path / "converted").unlink()
    assert "ONNX Runtime's own format" in refusal(tmp_path, content)
    with pytest.raises(Exception, match="protobuf parsing failed"):
        SessionFactory("cpu").create(content)


def test_file_valid_as_ort_format_and_onnx_is_rejected(tmp_path: Path) -> None:
    """protobuf skips unknown fields, which leaves a message without a graph."""
    content = b"\x48\x00\x4d\x00ORTM\x00\x00\x00\x00"
    assert onnx.ModelProto.FromString(content).ListFields() == []
    assert "ONNX Runtime's own format" in refusal(tmp_path, content)


def test_graph_without_nodes_is_rejected(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    del built.graph.node[:]
    assert "its graph is empty" in refusal(tmp_path, built)


@pytest.mark.parametrize("place", ["/etc/passwd", "../../../etc/passwd", "weights"])
def test_external_data_is_rejected(tmp_path: Path, place: str) -> None:
    built = onnx_files.model(PLAIN)
    matrix = built.graph.initializer[0]
    onnx.external_data_helper.set_external_data(matrix, place)
    matrix.ClearField("raw_data")
    assert "'matrix' are external data" in refusal(tmp_path, built)


def test_external_data_of_a_constant_in_a_subgraph_is_rejected(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(8, dtype=np.float32), "hidden")
    constant = helper.make_node("Constant", [], ["out"], value=tensor)
    onnx.external_data_helper.set_external_data(constant.attribute[0].t, "/etc/passwd")
    branches = {"then_branch": graph(constant), "else_branch": graph(constant)}
    built = with_nodes(TRUE, helper.make_node("If", ["true"], ["changed"], **branches))
    assert "'hidden' are external data" in refusal(tmp_path, built)


def test_sparse_weights_are_rejected(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "sparse")
    places = numpy_helper.from_array(np.zeros(1, dtype=np.int64), "places")
    built.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [8]))
    assert "sparse tensors" in refusal(tmp_path, built)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_weights_are_rejected(tmp_path: Path, number: float) -> None:
    built = onnx_files.model(PLAIN)
    matrix = numpy_helper.to_array(built.graph.initializer[0]).copy()
    matrix[1, 2] = number
    built.graph.initializer[0].CopyFrom(numpy_helper.from_array(matrix, "matrix"))
    assert "'matrix' contain NaN or infinity" in refusal(tmp_path, built)


def test_additional_input_is_rejected(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    built.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 8]))
    assert "its inputs are" in refusal(tmp_path, built)


def test_output_smaller_than_the_batch_is_rejected(tmp_path: Path) -> None:
    """Always one image, which is right for a batch of one only."""
    first = [numpy_helper.from_array(np.array([at]), name) for at, name in ((0, "from"), (1, "to"))]
    nodes = [helper.make_node("Constant", [], [each.name], value=each) for each in first]
    built = with_nodes(*nodes, helper.make_node("Slice", ["latent", "from", "to"], ["changed"]))
    assert "the model returned uint8 of shape (1, 16, 16, 3)" in refusal(tmp_path, built)
