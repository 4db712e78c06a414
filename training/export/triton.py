"""A Triton model repository: the model file as it is, and what Triton must know of it.

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
"""Rows that Triton computes in one piece: more gain little, and take memory for each."""


def check(repository: Path, manifest: Manifest) -> None:
    """Raise ``ExportError`` where the model is there with other tensors.

    One ``config.pbtxt`` speaks for all versions. Whatever else was changed in it stays.
    """
    path = repository / manifest.name / CONFIG_FILE
    if path.exists() and _tensors(manifest) not in path.read_text("utf-8"):
        raise ExportError(
            f"{path} does not describe the tensors of this version, and stands for all of them: "
            "name another folder, or take the model's versions away"
        )


def add(repository: Path, manifest: Manifest, version: int, model: bytes) -> Path:
    """Put ``model``, the content of a model file, beside its other versions; returns its folder.

    Raises ``ExportError`` as ``check`` does.
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
    """``config.pbtxt`` of all versions of a model.

    ``max_batch_size`` has Triton know the first dimension, which ``dims`` leave out, as rows that
    may be of several requests; ``dynamic_batching`` has it put together whatever waits, and wait
    for nothing.
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
