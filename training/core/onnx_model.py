"""Export of PyTorch modules to ONNX, without traces of the exporting machine."""

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
    """Convert ``module`` in inference mode; the first dimension of all inputs, rows, is dynamic."""
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
    model = program.model_proto  # each access builds a new one
    _strip(model)
    _rename(model, inputs, outputs)
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Serialise the model. Raises ``onnx.checker.ValidationError`` if it is invalid."""
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes on the source code: paths, lines, class names."""
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
    """Rename the outputs, and prefix all internal names so that none collides with them.

    Outputs are named after users' attributes, so their names can be any words.
    """
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
