"""What an ONNX file may be made of: standard operators, and finite weights that lie in the file.

It is read as a message here, before ONNX Runtime acts on any of it. Only the process that vets
files imports this (see ``examination.py``): a malformed one may crash the reader.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import numpy_helper

from service.errors import InvalidModel

STANDARD = ("", "ai.onnx")
"""The two spellings of the domain of ONNX's own operators."""
ORT_FORMAT = b"ORTM"
"""What a file of ONNX Runtime's own format has at bytes 4 to 8."""


def check_structure(content: bytes) -> None:
    """Raise ``InvalidModel`` where the content of an ONNX file holds what is not taken."""
    if content[4:8] == ORT_FORMAT:  # it may be both, and nothing to be seen in what ONNX is of it
        raise InvalidModel("cannot load it: it is in ONNX Runtime's own format, not in ONNX")
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise InvalidModel(f"cannot load it: it is no ONNX file: {error}") from error
    if not model.graph.node:
        raise InvalidModel("cannot load it: its graph is empty")
    opset = min((each.version for each in model.opset_import if each.domain in STANDARD), default=1)
    for message in _messages(model):
        if isinstance(message, onnx.NodeProto):
            _check_node(message, opset)
        elif isinstance(message, onnx.FunctionProto):
            # ONNX Runtime knows operators that the file may only pretend to bring along.
            raise InvalidModel(
                f"cannot load it: it brings a function of its own, {_short(message.name)}; "
                "only the standard operators of ONNX are taken"
            )
        elif isinstance(message, onnx.SparseTensorProto):
            raise InvalidModel("cannot load it: it has sparse tensors, which are not taken")
        elif isinstance(message, onnx.TensorProto):
            _check_tensor(message)


def _messages(root: Message) -> Iterator[Message]:
    """A message and all that is anywhere within it: functions, subgraphs, attributes."""
    left = [root]
    while left:
        message = left.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                left.extend([value] if isinstance(value, Message) else value)


def _check_node(node: onnx.NodeProto, opset: int) -> None:
    # ONNX Runtime has put some of its own into the standard domain.
    if node.domain not in STANDARD or not onnx.defs.has(node.op_type, opset):
        raise InvalidModel(
            f"cannot load it: its operator {_short(node.op_type)} is of {_short(node.domain)}; "
            "only the standard operators of ONNX are taken"
        )


def _check_tensor(tensor: onnx.TensorProto) -> None:
    name = _short(tensor.name)
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
        raise InvalidModel(f"cannot load it: the weights {name} are not all finite numbers")


def _short(text: str | bytes) -> str:
    """A name as it can be told: protobuf gives bytes where it is no UTF-8."""
    return repr(text[:80])
