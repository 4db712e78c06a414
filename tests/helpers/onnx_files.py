"""Small model files made with onnx alone: valid ones, and parts of invalid ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.core.manifest import CONDITION, IMAGE, LATENT, METADATA_KEY, Manifest


def model(manifest: Manifest) -> onnx.ModelProto:
    """Generator with the manifest's signature: one random matrix."""
    inputs = [_value(LATENT, TensorProto.FLOAT, manifest.latent_size)]
    if manifest.attributes:
        inputs.append(_value(CONDITION, TensorProto.FLOAT, manifest.condition_size))
    names = [value.name for value in inputs]
    shape = [*manifest.image_shape]
    rows = manifest.latent_size + manifest.condition_size
    matrix = np.random.default_rng(0).normal(127, 20, (rows, np.prod(shape))).astype(np.float32)
    nodes = [
        helper.make_node("Concat", names, ["rows"], axis=1),
        helper.make_node("MatMul", ["rows", "matrix"], ["flat"]),
        helper.make_node("Clip", ["flat", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "shape"], [IMAGE]),
    ]
    constants = [
        numpy_helper.from_array(matrix, "matrix"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "low"),
        numpy_helper.from_array(np.array(255, dtype=np.float32), "high"),
        numpy_helper.from_array(np.array([-1, *shape], dtype=np.int64), "shape"),
    ]
    outputs = [_value(IMAGE, TensorProto.UINT8, *shape)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    describe(built, manifest.model_dump_json())
    return built


def bright_verifier(manifest: Manifest, gives: str = "mean") -> bytes:
    """Verifier of one attribute of two values: the first has the mean of the image as probability.

    With ``gives="nan"``, probabilities are NaN except for a black image.
    """
    shape = [*manifest.image_shape]
    (attribute,) = manifest.attributes
    node = helper.make_node
    nodes = [
        node("Cast", [IMAGE], ["levels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["levels", "axes"], ["level"], keepdims=0),
        node("Div", ["level", "white"], ["mean"]),
        node("Sub", ["zero", "mean"], ["below"]),
        node("Sqrt", ["below"], ["nan"]),
        node("Sub", ["one", gives], ["rest"]),
        node("Concat", [f"{gives}_", "rest_"], [attribute.name], axis=1),
    ]
    nodes[-1:-1] = [node("Unsqueeze", [name, "last"], [f"{name}_"]) for name in (gives, "rest")]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ] + [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        for name, value in (("zero", 0.0), ("one", 1.0), ("white", 255.0))
    ]
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", *shape])
    eyes = helper.make_tensor_value_info(attribute.name, TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph(nodes, "verifier", [image], [eyes], constants)
    opset = [helper.make_opsetid("", 20)]
    content: bytes = helper.make_model(
        graph, opset_imports=opset, ir_version=10
    ).SerializeToString()
    return content


def describe(built: onnx.ModelProto, text: str) -> None:
    """Set the text of the manifest in a model's metadata."""
    helper.set_model_props(built, {METADATA_KEY: text})


def verifier(*sizes: tuple[str, int], image: tuple[int, int, int] = (16, 16, 3)) -> bytes:
    """Verifier that gives every value of an attribute the same probability."""
    nodes, outputs, constants = [], [], []
    shape = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", *image])
    for name, size in sizes:
        constants.append(
            numpy_helper.from_array(np.full((np.prod(image), size), 0, np.float32), f"{name}-w")
        )
        nodes += [
            helper.make_node("Flatten", [IMAGE], [f"{name}-flat"]),
            helper.make_node("Cast", [f"{name}-flat"], [f"{name}-float"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", [f"{name}-float", f"{name}-w"], [f"{name}-logits"]),
            helper.make_node("Softmax", [f"{name}-logits"], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]))
    graph = helper.make_graph(nodes, "verifier", [shape], outputs, constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()


def put(folder: Path, name: str, version: int | str, content: bytes | onnx.ModelProto) -> Path:
    """Write ``folder/name/version/model.onnx``."""
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def _value(name: str, kind: int, *sizes: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["N", *sizes])
