"""Triton model repository: the unchanged model file, and its ``config.pbtxt``.

    DIR/NAME/config.pbtxt
             VERSION/model.onnx

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from __future__ import annotations

import shutil
from pathlib import Path

from service.core.atomic_write import write_atomically
from service.core.manifest import IMAGE, MODEL_FILE, Manifest
from training.errors import ExportError

CONFIG_FILE = "config.pbtxt"
MAX_BATCH = 64
"""Rows in a batch of Triton: larger batches gain little, and need memory for each row."""


def check(repository: Path, manifest: Manifest) -> None:
    """Raise ``ExportError`` if the repository has the model with other tensors.

    One ``config.pbtxt`` describes all versions. An existing one is kept with its changes.
    """
    path = repository / manifest.name / CONFIG_FILE
    if path.exists() and _tensors(manifest) not in path.read_text("utf-8"):
        raise ExportError(
            f"{path} describes all versions of the model, but has other tensors than this one: "
            "use another folder, or remove the model's versions"
        )


def add(repository: Path, manifest: Manifest, version: int, model: bytes) -> Path:
    """Add ``model``, the content of a model file, beside its other versions; returns its folder.

    Raises ``ExportError`` like ``check``.
    """
    check(repository, manifest)
    folder = repository / manifest.name
    target = folder / str(version)
    unfinished = folder / f".{version}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    write_atomically(unfinished / MODEL_FILE, model)
    if not (folder / CONFIG_FILE).exists():
        write_atomically(folder / CONFIG_FILE, config(manifest))
    unfinished.replace(target)
    return target


def config(manifest: Manifest) -> str:
    """Content of ``config.pbtxt``, for all versions of a model.

    With ``max_batch_size``, the first dimension, which ``dims`` leave out, is the batch, and may
    hold rows of several requests. With ``dynamic_batching``, Triton batches the requests that are
    queued, without a delay.
    """
    return f"""\
name: "{manifest.name}"
backend: "onnxruntime"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH}
{_tensors(manifest)}
dynamic_batching {{ }}
version_policy {{ all {{ }} }}
"""


def _tensors(manifest: Manifest) -> str:
    inputs = [_tensor(name, "TYPE_FP32", size) for name, size in manifest.inputs.items()]
    output = _tensor(IMAGE, "TYPE_UINT8", *manifest.image_shape)
    return f"input [{','.join(inputs)}\n]\noutput [{output}\n]"


def _tensor(name: str, kind: str, *dims: int) -> str:
    return f'\n  {{ name: "{name}", data_type: {kind}, dims: [ {", ".join(map(str, dims))} ] }}'
