"""Image sources: positions to model inputs, and the batch run that turns them into images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from service.core import latents
from service.core.image_info import ImageInfo
from service.core.labels import Choice
from service.core.latents import IndexRange
from service.errors import InferenceFailed
from service.inference.model import Model

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.int64]


class ModelInputs(NamedTuple):
    """Inputs of N images, with their descriptions: ``latent [N, Z]`` and ``condition [N, C]``."""

    latent: Floats
    condition: Floats
    infos: list[ImageInfo]
    verify: list[Choice] | None = None
    """Values of each image whose probability the verifier reports; None without verification."""


class ImageSource(Protocol):
    """Images that follow from their position alone, whatever else is in a batch."""

    @property
    def model(self) -> Model: ...

    def ranges(self, chunk: range) -> list[IndexRange]:
        """Ranges to draw latents and labels for, S in all, for the images at ``chunk``."""
        ...

    def model_inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        """Inputs of the images at ``chunk`` from drawn latents ``[S, Z]`` and labels ``[S, A]``."""
        ...


def run_batch(
    batch: Sequence[tuple[ImageSource, range]], *, exclusive: bool
) -> list[tuple[list[ImageInfo], Any]]:
    """Run one model once for several sources; return each one's descriptions and images.

    Images are uint8 ``[N, H, W, channels]``. ``exclusive``: see ``Model.generate``. Raises
    ``InferenceFailed`` for malformed output, and errors of ONNX Runtime.
    """
    model = batch[0][0].model
    ranges = [source.ranges(chunk) for source, chunk in batch]
    flat = [each for of_source in ranges for each in of_source]
    latent = latents.latents_of(flat, model.manifest.latent_size)
    values = latents.draw_labels_of(flat, model.manifest.attributes)
    inputs = []
    first = 0
    for (source, chunk), of_source in zip(batch, ranges, strict=True):
        rows = slice(first, first + sum(each.count for each in of_source))
        inputs.append(source.model_inputs(chunk, latent[rows], values[rows]))
        first = rows.stop
    images = model.generate(
        np.concatenate([each.latent for each in inputs]),
        np.concatenate([each.condition for each in inputs]),
        exclusive=exclusive,
    )
    model.check(images, sum(len(each.infos) for each in inputs))
    rendered = []
    first = 0
    for each in inputs:
        pixels = images[first : first + len(each.infos)]
        infos = each.infos
        if each.verify is not None:
            infos = _with_probabilities(model, infos, pixels, each.verify)
        rendered.append((infos, pixels))
        first += len(each.infos)
    return rendered


def _with_probabilities(
    model: Model, infos: list[ImageInfo], images: Any, choices: list[Choice]
) -> list[ImageInfo]:
    """``infos`` with the verifier's probability of each image's ``choices``.

    Raises ``InferenceFailed`` for NaN or infinity, which would look like a rejected image.
    """
    assert model.verifier is not None
    probabilities = model.verifier(images)
    attributes = model.manifest.attributes
    verified = [
        {attributes[a].name: float(probabilities[a][i, v]) for a, v in choice.items()}
        for i, choice in enumerate(choices)
    ]
    if not all(math.isfinite(value) for each in verified for value in each.values()):
        raise InferenceFailed("the verifier returned a probability that is NaN or infinite")
    return [replace(info, verified=each) for info, each in zip(infos, verified, strict=True)]
