"""What is asked for, as numbers: which images, from which latents, under which labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from service.core import latents
from service.core.address import Address
from service.core.image_info import ImageInfo
from service.core.labels import Choice, ParsedLabel
from service.core.latents import IndexRange
from service.errors import InferenceFailed
from service.inference.model import Model

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.int64]


class ModelInputs(NamedTuple):
    """What the generator takes, ``latent [N, Z]`` and ``condition [N, C]``, and what comes out."""

    latent: Floats
    condition: Floats
    frames: list[ImageInfo]
    verify: list[Choice] | None = None
    """What the verifier is to look for in each image, if it is."""


class ImageSource(Protocol):
    """Images that follow from their position alone, whatever else is in a batch."""

    @property
    def model(self) -> Model: ...

    def stretches(self, chunk: range) -> list[IndexRange]:
        """What is to be drawn for the images at the positions ``chunk``."""
        ...

    def inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        """The images at ``chunk`` from what was drawn: latents ``[S, Z]`` and labels ``[S, A]``."""
        ...


@dataclass(frozen=True)
class SeedImages:
    """The images of a seed at ``indices``.

    The image at index i takes entry ``i mod len`` of ``asked``; without any, all is drawn.
    """

    model: Model
    seed: int
    indices: Sequence[int]
    asked: Sequence[ParsedLabel] = ()
    truncation: float = 1.0
    verify: bool = False
    """Have the verifier look for what was asked, or, if nothing was, for what was drawn."""

    def stretches(self, chunk: range) -> list[IndexRange]:
        return [
            IndexRange(self.seed, run.start, len(run))
            for run in _runs(self.indices[chunk.start : chunk.stop])
        ]

    def inputs(self, chunk: range, latent: Floats, values: Values) -> ModelInputs:
        vocabulary = self.model.vocabulary
        indices = self.indices[chunk.start : chunk.stop]
        for row, index in zip(values, indices, strict=True):
            for attribute, value in self._asked(index).items():
                row[attribute] = value
        frames = [
            ImageInfo(index, vocabulary.names(row) or None, self.address(index))
            for index, row in zip(indices, values.tolist(), strict=True)
        ]
        if self.truncation != 1:
            latent = latent * np.float32(self.truncation)
        verify = None
        if self.verify:
            verify = [
                self._asked(index) or dict(enumerate(row))
                for index, row in zip(indices, values.tolist(), strict=True)
            ]
        return ModelInputs(latent, vocabulary.condition(values), frames, verify)

    def address(self, index: int) -> Address:
        return Address(
            model=self.model.name,
            version=self.model.version,
            seed=self.seed,
            index=index,
            label=self.asked[index % len(self.asked)].phrase if self.asked else None,
            truncation=self.truncation,
        )

    def _asked(self, index: int) -> Choice:
        return self.asked[index % len(self.asked)].choice if self.asked else {}


def _runs(indices: Sequence[int]) -> list[range]:
    """Increasing ``indices`` as runs without gaps."""
    if isinstance(indices, range):
        return [indices]
    runs: list[range] = []
    for index in indices:
        if runs and runs[-1].stop == index:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs


def run_batch(
    batch: Sequence[tuple[ImageSource, range]], *, alone: bool
) -> list[tuple[list[ImageInfo], Any]]:
    """Images of several sources of one model, in one run of it: frames and ``[N, H, W, channels]``.

    ``alone`` says that nothing else is being computed (see ``Model.generate``). Raises
    ``InferenceFailed`` where what the networks give is not what they promise, and what they raise.
    """
    model = batch[0][0].model
    stretches = [source.stretches(chunk) for source, chunk in batch]
    drawn = [stretch for several in stretches for stretch in several]
    latent = latents.latents_of(drawn, model.manifest.latent_size)
    values = latents.draw_labels_of(drawn, model.manifest.attributes)
    inputs = []
    first = 0
    for (source, chunk), several in zip(batch, stretches, strict=True):
        rows = slice(first, first + sum(stretch.count for stretch in several))
        inputs.append(source.inputs(chunk, latent[rows], values[rows]))
        first = rows.stop
    images = model.generate(
        np.concatenate([each.latent for each in inputs]),
        np.concatenate([each.condition for each in inputs]),
        alone=alone,
    )
    _check(model, images, sum(len(each.frames) for each in inputs))
    made = []
    first = 0
    for each in inputs:
        pixels = images[first : first + len(each.frames)]
        frames = each.frames
        if each.verify is not None:
            frames = _verified(model, frames, pixels, each.verify)
        made.append((frames, pixels))
        first += len(each.frames)
    return made


def _check(model: Model, images: Any, count: int) -> None:
    """Raise ``InferenceFailed`` for what is not ``count`` images of the model."""
    shape = (count, model.manifest.height, model.manifest.width, model.manifest.channels)
    if images.shape != shape or images.dtype != np.uint8:
        raise InferenceFailed(
            f"the model gave {images.dtype} of shape {images.shape} instead of uint8 of {shape}"
        )


def _verified(
    model: Model, frames: list[ImageInfo], images: Any, looked_for: list[Choice]
) -> list[ImageInfo]:
    """``frames`` with what the verifier thinks of their ``images [N, H, W, channels]``.

    Raises ``InferenceFailed`` for what is no number: it would look like a label not seen.
    """
    assert model.verifier is not None
    seen = model.verifier(images)
    attributes = model.manifest.attributes
    verified = [
        {attributes[a].name: float(seen[a][i, v]) for a, v in choice.items()}
        for i, choice in enumerate(looked_for)
    ]
    if not all(math.isfinite(value) for each in verified for value in each.values()):
        raise InferenceFailed("the verifier gave a probability that is no number")
    return [replace(frame, verified=each) for frame, each in zip(frames, verified, strict=True)]
