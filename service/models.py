"""The models folder: find, check, load, warm.

    models/<name>/<version>/model.onnx
                            verifier.onnx   optional

A file that cannot be served is refused with a reason; the rest go on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from pydantic import ValidationError

from service import inference, latents
from service.errors import ModelRefused, StartupError, UnknownModel
from service.inference import Generator
from service.labels import Vocabulary
from service.manifest import METADATA_KEY, NAME_PATTERN, Kind, Manifest
from service.runtime import Runtime, first_line
from service.verifier import Verifier, load_verifier

MODEL_FILE = "model.onnx"
VERIFIER_FILE = "verifier.onnx"
VERSION_PATTERN = r"^[1-9][0-9]{0,8}$"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Model:
    """One version of one generator, loaded and warmed."""

    manifest: Manifest
    version: int
    sha256: str
    generator: Generator
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


@dataclass(frozen=True)
class Refusal:
    """A file that is not served, by its place in the models folder, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Library:
    """All models that are served."""

    models: dict[str, dict[int, Model]]
    refused: list[Refusal]
    chosen: dict[Kind, str | None]
    """The configured default of each kind, where there is one; else it is the first by name."""

    @functools.cached_property
    def _defaults(self) -> dict[Kind, str | None]:
        """The model of each kind for a request that names none, where there is one."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        return {kind: self.chosen.get(kind) or next(iter(self.names(kind)), None) for kind in kinds}

    def names(self, kind: Kind) -> list[str]:
        """The models whose highest version is of ``kind``."""
        return [name for name in self.models if self.get(name).manifest.kind == kind]

    def verified(self) -> list[str]:
        """The models whose highest version has a verifier."""
        return [name for name in self.models if self.get(name).verifier is not None]

    def versions(self, name: str) -> dict[int, Model]:
        """All versions of a model. Raises ``UnknownModel``."""
        if name not in self.models:
            raise UnknownModel(
                f"no model {name[:80]!r}; there are: {', '.join(self.models)}",
                models=list(self.models),
            )
        return self.models[name]

    def get(self, name: str, version: int | None = None) -> Model:
        """A model by name, its highest version unless one is given. Raises ``UnknownModel``."""
        versions = self.versions(name)
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            raise UnknownModel(
                f"model {name!r} has no version {version}; there are: "
                f"{', '.join(map(str, sorted(versions)))}",
                versions=sorted(versions),
            )
        return versions[version]

    def choose(self, name: str | None, version: int | None, *, labelled: bool) -> Model:
        """The model of that name, else the default: a conditional one for what is labelled.

        Raises ``UnknownModel``.
        """
        if name is None:
            plain = not labelled and self._defaults["unconditional"] is not None
            name = self.default("unconditional" if plain else "conditional").name
        return self.get(name, version)

    def default(self, kind: Kind) -> Model:
        """The model for a request that names none. Raises ``UnknownModel``."""
        name = self._defaults[kind]
        if name is None:
            raise UnknownModel(f"no {kind} model is served; name one of: {', '.join(self.models)}")
        return self.get(name)


def load_library(folder: Path, runtime: Runtime, chosen: dict[Kind, str | None]) -> Library:
    """Load every model below ``folder``.

    Raises ``StartupError`` where there is nothing to serve, or no model of the name and kind
    that ``chosen`` makes a default.
    """
    if not folder.is_dir():
        raise StartupError(f"the models folder {folder} does not exist; set FIGMENT_MODELS")
    # Names that begin with a dot are an export at work.
    paths = sorted(folder.glob(f"[!.]*/[!.]*/{MODEL_FILE}"))
    runtime.settle(_readable(paths))
    models: dict[str, dict[int, Model]] = {}
    refused = [
        Refusal(path.relative_to(folder).as_posix(), "lies too high: put it into NAME/VERSION/")
        for path in (*folder.glob(MODEL_FILE), *folder.glob(f"[!.]*/{MODEL_FILE}"))
    ]
    for path in paths:
        place = path.relative_to(folder).as_posix()
        try:
            model = load_model(path, runtime)
        except ModelRefused as error:
            refused.append(Refusal(place, str(error)))
        else:
            verifier = path.with_name(VERIFIER_FILE)
            try:
                model = _with_verifier(model, verifier, runtime)
            except ModelRefused as error:
                refused.append(Refusal(verifier.relative_to(folder).as_posix(), str(error)))
            models.setdefault(model.name, {})[model.version] = model
    for refusal in refused:
        log.warning("refused %s: %s", refusal.path, refusal.reason)
    if not models:
        reasons = "".join(f"\n  {refusal.path}: {refusal.reason}" for refusal in refused)
        raise StartupError(
            f"no model to serve in {folder} (looked for NAME/VERSION/{MODEL_FILE}){reasons}"
        )
    library = Library(models, refused, chosen)
    for kind, name in chosen.items():
        if name is not None and name not in library.names(kind):
            raise StartupError(
                f"{name!r} cannot be the default {kind} model; there are: "
                f"{', '.join(library.names(kind)) or 'none'}"
            )
    return library


def _readable(paths: Iterable[Path]) -> Iterator[bytes]:
    """The contents of the files; what cannot be read is refused later, with its reason."""
    for path in paths:
        with contextlib.suppress(OSError):
            yield path.read_bytes()


def load_model(path: Path, runtime: Runtime) -> Model:
    """Load ``NAME/VERSION/model.onnx``, check it and run it once. Raises ``ModelRefused``."""
    name, version = path.parent.parent.name, path.parent.name
    if not re.fullmatch(NAME_PATTERN, name):
        raise ModelRefused(f"{name!r} is no model name: lower-case letters, digits and '-'")
    if not re.fullmatch(VERSION_PATTERN, version):
        raise ModelRefused(f"{version!r} is no version: 1, 2, 3 ...")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error}") from error
    try:
        session = runtime.open(content)
    except Exception as error:
        raise ModelRefused(f"ONNX Runtime cannot load it: {first_line(error)}") from error
    manifest = _read_manifest(session)
    if manifest.name != name:
        raise ModelRefused(f"its manifest calls it {manifest.name!r}, its folder {name!r}")
    _check_signature(session, manifest)
    try:
        generator = inference.build(runtime, content, session)
    except Exception as error:
        raise ModelRefused(f"it does not run: {first_line(error)}") from error
    vocabulary = Vocabulary(manifest.attributes, where=f"/models/{name}/labels")
    vocabulary.check()
    model = Model(
        manifest=manifest,
        version=int(version),
        sha256=hashlib.sha256(content).hexdigest(),
        generator=generator,
        vocabulary=vocabulary,
    )
    _warm(model)
    return model


def _with_verifier(model: Model, path: Path, runtime: Runtime) -> Model:
    """The model with the verifier at ``path``, if there is one. Raises ``ModelRefused``."""
    if not path.exists():
        return model
    return replace(model, verifier=load_verifier(path, model.manifest, runtime))


def _read_manifest(session: ort.InferenceSession) -> Manifest:
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError as error:
        raise ModelRefused(f"its metadata is not UTF-8: {error}") from error
    if text is None:
        raise ModelRefused(f"has no manifest (metadata key {METADATA_KEY!r})")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise ModelRefused(f"its manifest is invalid: {'; '.join(faults)}") from error


def _check_signature(session: ort.InferenceSession, manifest: Manifest) -> None:
    expected_inputs = {"latent": ("tensor(float)", [None, manifest.latent_size])}
    if manifest.kind == "conditional":
        expected_inputs["condition"] = ("tensor(float)", [None, manifest.condition_size])
    shape = [None, manifest.height, manifest.width, manifest.channels]
    expected_outputs = {"image": ("tensor(uint8)", shape)}
    for what, nodes, expected in (
        ("inputs", session.get_inputs(), expected_inputs),
        ("outputs", session.get_outputs(), expected_outputs),
    ):
        found = {node.name: (node.type, _shape(node)) for node in nodes}
        if found != expected:
            raise ModelRefused(f"its {what} are {found}, its manifest asks for {expected}")


def _shape(node: ort.NodeArg) -> list[int | None]:
    """Sizes, with None for one that is free."""
    return [size if isinstance(size, int) else None for size in node.shape]


def _warm(model: Model) -> None:
    manifest = model.manifest
    latent = latents.latents(0, 0, 1, manifest.latent_size)
    values = latents.draw_labels(0, 0, 1, manifest.attributes)
    try:
        images = model.generate(latent, model.vocabulary.condition(values))
    except Exception as error:
        raise ModelRefused(f"it does not run: {first_line(error)}") from error
    expected = (1, manifest.height, manifest.width, manifest.channels)
    if images.shape != expected:
        raise ModelRefused(f"it gives images of shape {images.shape} instead of {expected}")
