"""What is asked for, as numbers: which images, from which latents, under which labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service import latents
from service.addresses import Address
from service.labels import Choice
from service.models import Model

Pixels = npt.NDArray[np.uint8]
"""One image ``[H, W, channels]``."""


@dataclass(frozen=True)
class Frame:
    """One image of an answer. ``labels`` is None for an unconditional model."""

    pixels: Pixels
    labels: dict[str, Any] | None
    address: Address | None
    """None between the ends of an interpolation."""
    t: float | None = None
    """Position in an interpolation, 0 to 1."""


@dataclass(frozen=True)
class Samples:
    """The images ``offset .. offset+n-1`` of a seed.

    Image ``index`` takes entry ``index mod len`` of ``choices``; without any, all is drawn.
    """

    model: Model
    seed: int
    offset: int
    n: int
    choices: Sequence[Choice] = ()
    truncation: float = 1.0

    def frames(self, chunk: range) -> list[Frame]:
        """Compute the images at the positions ``chunk``, counted from ``offset``."""
        first, count = self.offset + chunk.start, len(chunk)
        values = self._values(first, count)
        images = self.model.generate(
            self._latents(first, count), self.model.vocabulary.condition(values)
        )
        return [
            Frame(pixels, self.model.vocabulary.names(row) or None, self.address(first + i))
            for i, (pixels, row) in enumerate(zip(images, values.tolist(), strict=True))
        ]

    def inputs(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Latents ``[n, Z]`` and conditions ``[n, C]`` of all images."""
        values = self._values(self.offset, self.n)
        return self._latents(self.offset, self.n), self.model.vocabulary.condition(values)

    def labels(self) -> list[dict[str, str]]:
        """The labels of all images, empty for an unconditional model."""
        values = self._values(self.offset, self.n).tolist()
        return [self.model.vocabulary.names(row) for row in values]

    def address(self, index: int) -> Address:
        choice = self._choice(index)
        return Address(
            model=self.model.name,
            version=self.model.version,
            seed=self.seed,
            index=index,
            label=self.model.vocabulary.phrase(choice) if choice else None,
            truncation=self.truncation,
        )

    def _choice(self, index: int) -> Choice:
        return self.choices[index % len(self.choices)] if self.choices else {}

    def _values(self, first: int, count: int) -> npt.NDArray[np.int64]:
        values = latents.draw_labels(self.seed, first, count, self.model.manifest.attributes)
        for row in range(count):
            for attribute, value in self._choice(first + row).items():
                values[row, attribute] = value
        return values

    def _latents(self, first: int, count: int) -> npt.NDArray[np.float32]:
        size = self.model.manifest.latent_size
        return latents.latents(self.seed, first, count, size) * np.float32(self.truncation)
