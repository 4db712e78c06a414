"""Check of an ONNX file: only standard operators, and finite weights inside the file.

It parses the file as a protobuf message, before ONNX Runtime acts on it. Only the sandbox process
imports this module (see ``service/models/sandbox_worker.py``): a malformed file may crash the
parser.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import numpy_helper

from service.core.text import SHORT_CHARACTERS
from service.errors import InvalidModel

STANDARD = ("", "ai.onnx")
"""Both spellings of the domain of ONNX's own operators."""
ORT_FORMAT = b"ORTM"
"""Bytes 4 to 8 of a file in ONNX Runtime's own format."""


def check_structure(content: bytes) -> None:
    """Raise ``InvalidModel`` if the content of an ONNX file is malformed or not allowed."""
    if content[4:8] == ORT_FORMAT:  # a file can be valid in both formats, harmless in ONNX only
        raise InvalidModel("cannot load it: it is in ONNX Runtime's own format, not in ONNX")
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise InvalidModel(f"cannot load it: it is not an ONNX file: {error}") from error
    if not model.graph.node:
        raise InvalidModel("cannot load it: its graph is empty")
    opset = min((each.version for each in model.opset_import if each.domain in STANDARD), default=1)
    for message in _messages(model):
        if isinstance(message, onnx.NodeProto):
            _check_node(message, opset)
        elif isinstance(message, onnx.FunctionProto):
            # ONNX Runtime may run an internal operator of the same name instead of the function.
            raise InvalidModel(
                f"cannot load it: it defines a function, {_quoted(message.name)}; "
                "only standard ONNX operators are allowed"
            )
        elif isinstance(message, onnx.SparseTensorProto):
            raise InvalidModel("cannot load it: it has sparse tensors, which are not allowed")
        elif isinstance(message, onnx.TensorProto):
            _check_tensor(message)


def _messages(root: Message) -> Iterator[Message]:
    """A message and all messages nested in it: functions, subgraphs, attributes."""
    left = [root]
    while left:
        message = left.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                left.extend([value] if isinstance(value, Message) else value)


def _check_node(node: onnx.NodeProto, opset: int) -> None:
    # ONNX Runtime has added some operators of its own to the standard domain.
    if node.domain not in STANDARD or not onnx.defs.has(node.op_type, opset):
        raise InvalidModel(
            f"cannot load it: its operator {_quoted(node.op_type)} is of {_quoted(node.domain)}; "
            "only standard ONNX operators are allowed"
        )


def _check_tensor(tensor: onnx.TensorProto) -> None:
    name = _quoted(tensor.name)
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise InvalidModel(
            f"cannot load it: the weights {name} are external data, in another file; a model is "
            "one file"
        )
    try:
        values = numpy_helper.to_array(tensor)
        finite = values.dtype.kind in "OSU" or bool(np.isfinite(values).all())
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidModel(f"cannot load it: the weights {name} are malformed: {error}") from error
    if not finite:
        raise InvalidModel(f"cannot load it: the weights {name} contain NaN or infinity")


def _quoted(name: str | bytes) -> str:
    """Printable name, shortened; protobuf gives bytes for a name that is not UTF-8."""
    return repr(name[:SHORT_CHARACTERS])
