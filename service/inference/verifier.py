"""The label verifier beside a conditional model: what a classifier sees in an image."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.core.manifest import Manifest
from service.errors import InvalidModel
from service.inference.session import SessionFactory, first_line

IMAGE = "image"

Probabilities = npt.NDArray[np.float32]


class Verifier:
    """Several threads may call it at once."""

    def __init__(self, session: ort.InferenceSession, attributes: list[str], sha256: str) -> None:
        """``sha256``: of its file."""
        self.sha256 = sha256
        self._session = session
        self._attributes = attributes

    def __call__(self, images: npt.NDArray[np.uint8]) -> list[Probabilities]:
        """``images [N, H, W, channels]`` to probabilities ``[N, values]`` of each attribute."""
        # One by one: a probability must not depend on what else is in a batch, and a classifier
        # gains a tenth by batches.
        seen = [
            self._session.run(self._attributes, {IMAGE: images[i : i + 1]})
            for i in range(len(images))
        ]
        return [np.concatenate(column) for column in zip(*seen, strict=True)]


def load_verifier(content: bytes, manifest: Manifest, runtime: SessionFactory) -> Verifier:
    """Load the content of a verifier, check it against the model's manifest and run it once.

    Raises ``InvalidModel``.
    """
    try:
        session = runtime.open(content)
    except Exception as error:
        raise InvalidModel(f"ONNX Runtime cannot load it: {first_line(error)}") from error
    shape = (manifest.height, manifest.width, manifest.channels)
    sizes = {attribute.name: len(attribute.values) for attribute in manifest.attributes}
    inputs = {node.name: (node.type, node.shape[1:]) for node in session.get_inputs()}
    outputs = {node.name: (node.type, node.shape[1:]) for node in session.get_outputs()}
    for what, found, expected in (
        ("inputs", inputs, {IMAGE: ("tensor(uint8)", list(shape))}),
        ("outputs", outputs, {name: ("tensor(float)", [size]) for name, size in sizes.items()}),
    ):
        if found != expected or not sizes:
            raise InvalidModel(f"its {what} are {found}, the model's manifest asks for {expected}")
    verifier = Verifier(session, list(sizes), hashlib.sha256(content).hexdigest())
    try:
        seen = verifier(np.zeros((1, *shape), dtype=np.uint8))
    except Exception as error:
        raise InvalidModel(f"it does not run: {first_line(error)}") from error
    for (name, size), probabilities in zip(sizes.items(), seen, strict=True):
        if probabilities.shape != (1, size) or not np.allclose(probabilities.sum(), 1, atol=1e-3):
            raise InvalidModel(f"its output {name!r} does not hold the probabilities of {size}")
    return verifier
