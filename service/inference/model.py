"""Model: read a model file, check it against its manifest, load it and run it once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from pydantic import ValidationError

from service.core import latents
from service.core.labels import Vocabulary
from service.core.manifest import (
    CONDITION,
    IMAGE,
    LATENT,
    MAX_MANIFEST_CHARACTERS,
    METADATA_KEY,
    NAME_PATTERN,
    VERSION_PATTERN,
    Manifest,
)
from service.core.text import first_line
from service.errors import InferenceFailed, InvalidModel
from service.inference.exactness import choose_executor
from service.inference.execution import Executor
from service.inference.session import SessionFactory
from service.inference.verifier import Verifier


@dataclass(frozen=True, eq=False)
class Model:
    """One version of one generator, loaded and warmed up."""

    manifest: Manifest
    version: int
    sha256: str
    executor: Executor
    vocabulary: Vocabulary
    verifier: Verifier | None = None

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def largest_batch(self) -> int:
        """Most images in one call of ``generate``."""
        return self.executor.largest_batch

    def generate(
        self,
        latent: npt.NDArray[np.float32],
        condition: npt.NDArray[np.float32],
        *,
        exclusive: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Images ``[N, H, W, channels]`` of ``latent [N, Z]`` and ``condition [N, C]``.

        C is 0 for an unconditional model. ``exclusive``: nothing else is being computed, so one
        image may use all cores; its bytes are the same either way.
        """
        feeds = {LATENT: latent}
        if self.manifest.kind == "conditional":
            feeds[CONDITION] = condition
        return self.executor(feeds, exclusive=exclusive)

    def check(self, images: npt.NDArray[Any], count: int) -> None:
        """Raise ``InferenceFailed`` unless ``images`` is uint8 ``[count, H, W, channels]``."""
        shape = (count, *self.manifest.image_shape)
        if images.shape != shape or images.dtype != np.uint8:
            raise InferenceFailed(
                f"the model returned {images.dtype} of shape {images.shape} instead of uint8 of "
                f"shape {shape}"
            )


def load_model(path: Path, runtime: SessionFactory) -> Model:
    """Load ``NAME/VERSION/model.onnx``, check it and run it. Raises ``InvalidModel``.

    Only for trusted files: ONNX Runtime may crash on others (see ``service/models/sandbox.py``).
    """
    return model_of(path, read_file(path), runtime)


def read_file(path: Path, max_bytes: int | None = None) -> bytes:
    """Content of a model file. Raises ``InvalidModel``, also for more than ``max_bytes``."""
    try:
        if not path.is_file():  # opening a pipe would block
            raise InvalidModel("cannot be read: it does not exist or is not a regular file")
        with path.open("rb") as file:
            content = file.read(-1 if max_bytes is None else max_bytes + 1)
    except OSError as error:
        raise InvalidModel(f"cannot be read: {error}") from error
    if max_bytes is not None and len(content) > max_bytes:
        raise InvalidModel(
            f"is larger than the {max_bytes // 1024**2} MB that FIGMENT_MAX_MODEL_MB allows"
        )
    return content


Build = Callable[[SessionFactory, bytes, ort.InferenceSession], Executor]


def model_of(
    path: Path, content: bytes, runtime: SessionFactory, build: Build = choose_executor
) -> Model:
    """Load a model from the ``content`` of its file at ``path``, check it and run it.

    ``path`` is ``NAME/VERSION/model.onnx``. ``build`` decides how batches run. Raises
    ``InvalidModel``.
    """
    name, version = path.parent.parent.name, path.parent.name
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidModel(f"{name!r} is not a model name: lower-case letters, digits and '-'")
    if not re.fullmatch(VERSION_PATTERN, version):
        raise InvalidModel(f"{version!r} is not a version: 1, 2, 3 ...")
    try:
        session = runtime.create(content)
    except Exception as error:
        raise InvalidModel(f"ONNX Runtime cannot load it: {first_line(error)}") from error
    manifest = _read_manifest(session)
    if manifest.name != name:
        raise InvalidModel(f"its manifest calls it {manifest.name!r}, its folder {name!r}")
    _check_signature(session, manifest)
    try:
        executor = build(runtime, content, session)
    except Exception as error:
        raise InvalidModel(f"it does not run: {first_line(error)}") from error
    vocabulary = Vocabulary(manifest.attributes, where=f"/models/{name}/labels")
    vocabulary.check()
    model = Model(
        manifest=manifest,
        version=int(version),
        sha256=hashlib.sha256(content).hexdigest(),
        executor=executor,
        vocabulary=vocabulary,
    )
    for count in (1, model.largest_batch):
        _try_out(model, count)
    return model


def _read_manifest(session: ort.InferenceSession) -> Manifest:
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError as error:
        raise InvalidModel(f"its metadata is not UTF-8: {error}") from error
    if text is None:
        raise InvalidModel(f"has no manifest (metadata key {METADATA_KEY!r})")
    if len(text) > MAX_MANIFEST_CHARACTERS:
        raise InvalidModel(f"its manifest has more than {MAX_MANIFEST_CHARACTERS} characters")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise InvalidModel(f"its manifest is invalid: {'; '.join(faults)}") from error


def _check_signature(session: ort.InferenceSession, manifest: Manifest) -> None:
    expected_inputs = {
        name: ("tensor(float)", [None, size]) for name, size in manifest.inputs.items()
    }
    expected_outputs = {IMAGE: ("tensor(uint8)", [None, *manifest.image_shape])}
    for what, nodes, expected in (
        ("inputs", session.get_inputs(), expected_inputs),
        ("outputs", session.get_outputs(), expected_outputs),
    ):
        found = {node.name: (node.type, _shape(node)) for node in nodes}
        if found != expected:
            raise InvalidModel(f"its {what} are {found}, its manifest requires {expected}")


def _shape(node: ort.NodeArg) -> list[int | None]:
    """Sizes, None for a dynamic one."""
    return [size if isinstance(size, int) else None for size in node.shape]


def _try_out(model: Model, count: int) -> None:
    """Compute ``count`` images. Raises ``InvalidModel`` if they do not fit the manifest."""
    manifest = model.manifest
    latent = latents.latents(0, 0, count, manifest.latent_size)
    values = latents.draw_labels(0, 0, count, manifest.attributes)
    try:
        images = model.generate(latent, model.vocabulary.condition(values))
    except Exception as error:
        raise InvalidModel(f"it does not run: {first_line(error)}") from error
    try:
        model.check(images, count)
    except InferenceFailed as error:
        raise InvalidModel(str(error)) from None
