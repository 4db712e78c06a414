"""Label verifier: a classifier of attribute values beside a conditional model."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.core.manifest import IMAGE, Manifest
from service.core.text import first_line
from service.errors import InvalidModel
from service.inference.session import SessionFactory

Probabilities = npt.NDArray[np.float32]


class Verifier:
    """Classifier of every attribute of a model. Thread-safe."""

    def __init__(self, session: ort.InferenceSession, attributes: list[str], sha256: str) -> None:
        """``sha256`` is that of its file."""
        self.sha256 = sha256
        self._session = session
        self._attributes = attributes

    def __call__(self, images: npt.NDArray[np.uint8]) -> list[Probabilities]:
        """Probabilities ``[N, values]`` of each attribute, for ``images [N, H, W, channels]``."""
        # One by one: a probability must not depend on the rest of a batch, and batches would save
        # only a tenth of the time.
        rows = [
            self._session.run(self._attributes, {IMAGE: images[i : i + 1]})
            for i in range(len(images))
        ]
        return [np.concatenate(column) for column in zip(*rows, strict=True)]


def load_verifier(content: bytes, manifest: Manifest, runtime: SessionFactory) -> Verifier:
    """Load a verifier from the content of its file, check it against a manifest and run it once.

    Raises ``InvalidModel``.
    """
    try:
        session = runtime.create(content)
    except Exception as error:
        raise InvalidModel(f"ONNX Runtime cannot load it: {first_line(error)}") from error
    sizes = {attribute.name: len(attribute.values) for attribute in manifest.attributes}
    inputs = {node.name: (node.type, node.shape[1:]) for node in session.get_inputs()}
    outputs = {node.name: (node.type, node.shape[1:]) for node in session.get_outputs()}
    for what, found, expected in (
        ("inputs", inputs, {IMAGE: ("tensor(uint8)", list(manifest.image_shape))}),
        ("outputs", outputs, {name: ("tensor(float)", [size]) for name, size in sizes.items()}),
    ):
        if found != expected or not sizes:
            raise InvalidModel(f"its {what} are {found}, the model's manifest requires {expected}")
    verifier = Verifier(session, list(sizes), hashlib.sha256(content).hexdigest())
    try:
        outputs_of_black = verifier(np.zeros((1, *manifest.image_shape), dtype=np.uint8))
    except Exception as error:
        raise InvalidModel(f"it does not run: {first_line(error)}") from error
    for (name, size), probabilities in zip(sizes.items(), outputs_of_black, strict=True):
        if probabilities.shape != (1, size) or not np.allclose(probabilities.sum(), 1, atol=1e-3):
            raise InvalidModel(f"its output {name!r} is not {size} probabilities that sum to 1")
    return verifier
