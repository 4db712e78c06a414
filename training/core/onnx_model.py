"""PyTorch modules as ONNX models that say nothing of the machine they were made on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn

OPSET = 20


def convert(
    module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """``module`` in evaluation mode, over any number of rows: the first dimension of all inputs."""
    rows = torch.export.Dim("N", min=1, max=65536)
    with warnings.catch_warnings():
        # The exporter warns of deprecations in its own code and of operators not used here.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            tuple(examples),
            input_names=list(inputs),
            output_names=[f"figment_output_{number}" for number in range(len(outputs))],
            dynamic_shapes=tuple({0: rows} for _ in examples),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto  # made anew at every access
    _strip(model)
    _rename(model, inputs, outputs)
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The file. Raises ``onnx.checker.ValidationError`` where it would be none."""
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about the source code: paths, lines, class names."""
    for part in (
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
        *model.graph.initializer,
    ):
        del part.metadata_props[:]
        part.doc_string = ""
    del model.metadata_props[:]


def _rename(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give outputs their names, which may be anybody's words, and all else names unlike them."""
    graph, prefix = model.graph, "_"
    while any(name.startswith(prefix) for name in (*inputs, *outputs)):
        prefix += "_"
    known = {name: name for name in inputs}
    known |= {value.name: name for value, name in zip(graph.output, outputs, strict=True)}

    def renamed(name: str) -> str:
        return known.get(name, prefix + name) if name else name  # "" is an input left out

    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = renamed(value.name)
