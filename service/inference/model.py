"""One model: read its file, check it against its manifest, load and warm it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from pydantic import ValidationError

from service.core import latents
from service.core.labels import Vocabulary
from service.core.manifest import (
    MAX_MANIFEST_CHARACTERS,
    METADATA_KEY,
    NAME_PATTERN,
    VERSION_PATTERN,
    Manifest,
)
from service.errors import InvalidModel
from service.inference import execution
from service.inference.execution import Executor
from service.inference.session import SessionFactory, first_line
from service.inference.verifier import Verifier


@dataclass(frozen=True, eq=False)
class Model:
    """One version of one generator, loaded and warmed."""

    manifest: Manifest
    version: int
    sha256: str
    generator: Executor
    vocabulary: Vocabulary
    verifier: Verifier | None = None

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def largest_batch(self) -> int:
        """The most images that one call of ``generate`` may make."""
        return self.generator.largest_batch

    def generate(
        self,
        latent: npt.NDArray[np.float32],
        condition: npt.NDArray[np.float32],
        *,
        alone: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """``latent [N, Z]`` and ``condition [N, C]`` (C is 0 if unconditional) to images.

        Returns ``[N, H, W, channels]``. ``alone`` says that nothing else is being computed, so that
        one image may take all cores; it comes out the same either way.
        """
        feeds = {"latent": latent}
        if self.manifest.kind == "conditional":
            feeds["condition"] = condition
        return self.generator(feeds, alone=alone)


def load_model(path: Path, runtime: SessionFactory) -> Model:
    """Load ``NAME/VERSION/model.onnx``, check it and run it. Raises ``InvalidModel``.

    For files that are trusted: ONNX Runtime may crash at others (see ``vetting.py``).
    """
    return model_of(path, read_file(path), runtime)


def read_file(path: Path, max_bytes: int | None = None) -> bytes:
    """The content of a model file. Raises ``InvalidModel``; no more is read than ``max_bytes``."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise InvalidModel("cannot be read: it is no file, or there is none")
        with path.open("rb") as file:
            content = file.read(-1 if max_bytes is None else max_bytes + 1)
    except OSError as error:
        raise InvalidModel(f"cannot be read: {error}") from error
    if max_bytes is not None and len(content) > max_bytes:
        raise InvalidModel(
            f"is larger than {max_bytes // 1024**2} MB, which FIGMENT_MAX_MODEL_MB allows"
        )
    return content


Build = Callable[[SessionFactory, bytes, ort.InferenceSession], Executor]


def model_of(
    path: Path, content: bytes, runtime: SessionFactory, build: Build = execution.choose_executor
) -> Model:
    """The model that ``content`` is, checked and run; it lies at ``NAME/VERSION/model.onnx``.

    ``choose_executor`` decides how it is run. Raises ``InvalidModel``.
    """
    name, version = path.parent.parent.name, path.parent.name
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidModel(f"{name!r} is no model name: lower-case letters, digits and '-'")
    if not re.fullmatch(VERSION_PATTERN, version):
        raise InvalidModel(f"{version!r} is no version: 1, 2, 3 ...")
    try:
        session = runtime.open(content)
    except Exception as error:
        raise InvalidModel(f"ONNX Runtime cannot load it: {first_line(error)}") from error
    manifest = _read_manifest(session)
    if manifest.name != name:
        raise InvalidModel(f"its manifest calls it {manifest.name!r}, its folder {name!r}")
    _check_signature(session, manifest)
    try:
        generator = build(runtime, content, session)
    except Exception as error:
        raise InvalidModel(f"it does not run: {first_line(error)}") from error
    vocabulary = Vocabulary(manifest.attributes, where=f"/models/{name}/labels")
    vocabulary.check()
    model = Model(
        manifest=manifest,
        version=int(version),
        sha256=hashlib.sha256(content).hexdigest(),
        generator=generator,
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
    expected_outputs = {"image": ("tensor(uint8)", [None, *manifest.image_shape])}
    for what, nodes, expected in (
        ("inputs", session.get_inputs(), expected_inputs),
        ("outputs", session.get_outputs(), expected_outputs),
    ):
        found = {node.name: (node.type, _shape(node)) for node in nodes}
        if found != expected:
            raise InvalidModel(f"its {what} are {found}, its manifest asks for {expected}")


def _shape(node: ort.NodeArg) -> list[int | None]:
    """Sizes, with None for one that is free."""
    return [size if isinstance(size, int) else None for size in node.shape]


def _try_out(model: Model, count: int) -> None:
    """Make so many images. Raises ``InvalidModel`` where they are not what the manifest says."""
    manifest = model.manifest
    latent = latents.latents(0, 0, count, manifest.latent_size)
    values = latents.draw_labels(0, 0, count, manifest.attributes)
    try:
        images = model.generate(latent, model.vocabulary.condition(values))
    except Exception as error:
        raise InvalidModel(f"it does not run: {first_line(error)}") from error
    expected = (count, manifest.height, manifest.width, manifest.channels)
    if images.shape != expected or images.dtype != np.uint8:
        raise InvalidModel(
            f"it gives {images.dtype} images of shape {images.shape} instead of uint8 {expected}"
        )
