"""What is asked for, as numbers: which images, from which latents, under which labels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from service import latents
from service.addresses import Address
from service.labels import Choice
from service.latents import Stretch
from service.models import Model

Pixels = npt.NDArray[np.uint8]
"""One image ``[H, W, channels]``."""
Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """All that is said of one image of an answer. ``labels`` is None for an unconditional model."""

    index: int
    labels: dict[str, Any] | None
    address: Address | None
    """None between the ends of an interpolation."""
    t: float | None = None
    """Position in an interpolation, 0 to 1."""


class Inputs(NamedTuple):
    """What the generator takes, ``latent [N, Z]`` and ``condition [N, C]``, and what comes out."""

    latent: Floats
    condition: Floats
    frames: list[Frame]


class Source(Protocol):
    """Images that follow from their position alone, whatever else is in a batch."""

    @property
    def model(self) -> Model: ...

    def stretches(self, chunk: range) -> list[Stretch]:
        """What is to be drawn for the images at the positions ``chunk``."""
        ...

    def inputs(self, chunk: range, latent: Floats, values: Values) -> Inputs:
        """The images at ``chunk`` from what was drawn: latents ``[S, Z]`` and labels ``[S, A]``."""
        ...


@dataclass(frozen=True)
class Samples:
    """The images of a seed from ``offset`` on: position 0 is that index.

    Image ``index`` takes entry ``index mod len`` of ``choices``; without any, all is drawn.
    """

    model: Model
    seed: int
    offset: int
    choices: Sequence[Choice] = ()
    truncation: float = 1.0

    def stretches(self, chunk: range) -> list[Stretch]:
        return [Stretch(self.seed, self.offset + chunk.start, len(chunk))]

    def inputs(self, chunk: range, latent: Floats, values: Values) -> Inputs:
        vocabulary = self.model.vocabulary
        indices = range(self.offset + chunk.start, self.offset + chunk.stop)
        if self.choices:
            for row, index in zip(values, indices, strict=True):
                for attribute, value in self.choices[index % len(self.choices)].items():
                    row[attribute] = value
        frames = [
            Frame(index, vocabulary.names(row) or None, self.address(index))
            for index, row in zip(indices, values.tolist(), strict=True)
        ]
        if self.truncation != 1:
            latent = latent * np.float32(self.truncation)
        return Inputs(latent, vocabulary.condition(values), frames)

    def address(self, index: int) -> Address:
        return Address(
            model=self.model.name,
            version=self.model.version,
            seed=self.seed,
            index=index,
            label=self._phrases[index % len(self._phrases)] if self._phrases else None,
            truncation=self.truncation,
        )

    @functools.cached_property
    def _phrases(self) -> list[str]:
        return [self.model.vocabulary.phrase(choice) for choice in self.choices]


def render(batch: Sequence[tuple[Source, range]], *, alone: bool) -> list[tuple[list[Frame], Any]]:
    """Images of several sources of one model, in one run of it: frames and ``[N, H, W, channels]``.

    ``alone`` says that nothing else is being computed (see ``Model.generate``).
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
    made = []
    first = 0
    for each in inputs:
        made.append((each.frames, images[first : first + len(each.frames)]))
        first += len(each.frames)
    return made
