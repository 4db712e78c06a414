"""Labelled images in memory: the form that every data source is read into."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress

import numpy as np
import numpy.typing as npt

from service.core.manifest import Attribute
from training.data.reading import Reading
from training.errors import DataError

HELD_OUT_SHARE, HELD_OUT_IMAGES, FEWEST_HELD_OUT = 0.1, 100, 32
"""Share that is held out; of small sets, the images that a full report needs, but at most a
quarter; of the smallest, those that any scores need, but at most a third."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images, whole in memory."""

    name: str
    images: npt.NDArray[np.uint8]
    """``[N, H, W, channels]``, RGB or grey, 0 to 255."""
    labels: npt.NDArray[np.int64]
    """``[N, A]``: for each attribute the index of the image's value. A is 0 for unlabelled data."""
    attributes: tuple[Attribute, ...]
    """The vocabulary, in the order of the columns of ``labels``."""
    licence: str = "unknown"
    names: tuple[str, ...] | None = None
    """Source of each image, for people to find it; None if the images have no names."""
    reading: Reading | None = field(default=None, compare=False)
    """Account of what was read and left out; None for images that were drawn."""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, H, W, C], not {self.images.dtype}")
        if self.labels.shape != (len(self.images), len(self.attributes)):
            raise ValueError(
                f"labels of shape {self.labels.shape} do not fit {len(self.images)} images "
                f"and {len(self.attributes)} attributes"
            )
        if self.names is not None and len(self.names) != len(self.images):
            raise ValueError(f"{len(self.names)} names do not fit {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    def title(self, index: int) -> str:
        """Name of image ``index`` for people."""
        return f"image {index}" if self.names is None else self.names[index]

    def spread(self, count: int) -> npt.NDArray[np.intp]:
        """Indices of at most ``count`` images, evenly spaced: data may be sorted by label."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.intp)

    def take(self, rows: npt.NDArray[np.bool_]) -> Dataset:
        """Images where ``rows [N]`` is true, under the same vocabulary."""
        names = None if self.names is None else tuple(compress(self.names, rows))
        return replace(self, images=self.images[rows], labels=self.labels[rows], names=names)

    def held_out(self, share: float | None) -> npt.NDArray[np.bool_]:
        """Mask ``[N]`` of the images to measure with: about ``share`` of all.

        None holds out a tenth, and of a small set more. Which, follows from an image's pixels,
        whatever its orientation: copies and mirrored copies stay on one side, and a set that grows
        keeps its split, but for the one that holds out a number of images.
        """
        fractions = self._fractions
        if share is None:
            quarter, third = len(self) // 4, len(self) // 3
            count = min(HELD_OUT_IMAGES, max(FEWEST_HELD_OUT, quarter), third)
            share = HELD_OUT_SHARE
            if count > share * len(self):
                share = float(np.sort(fractions)[count])
        return np.asarray(fractions < share)

    def split(self, share: float | None, images: int | None = None) -> tuple[Dataset, Dataset]:
        """Images to train on, and those of :meth:`held_out`.

        With ``images``, only so many are trained on, always the same ones; the others to measure
        with stay the same. Raises ``DataError`` if there are fewer.
        """
        held = self.held_out(share)
        trained = ~held
        if images is not None:
            if images > trained.sum():
                problem = f"has {trained.sum():,} images to train on, and {images:,} are asked for"
                raise DataError(self.name, [problem])
            order = np.argsort(np.where(held, 1, self._fractions), kind="stable")
            trained = np.isin(np.arange(len(self)), order[:images])
        return self.take(trained), self.take(held)

    @cached_property
    def _fractions(self) -> npt.NDArray[np.float64]:
        return np.array([_fraction(image) for image in self.images])

    def among(self, other: Dataset) -> npt.NDArray[np.bool_]:
        """Mask ``[N]`` of the images that are also in ``other``, mirrored ones too."""
        known = {_fraction(image) for image in other.images}
        return np.array([_fraction(image) in known for image in self.images], dtype=np.bool_)

    @cached_property
    def sha256(self) -> str:
        """Digest of pixels, labels and vocabulary: equal exactly where training would be."""
        digest = hashlib.sha256()
        digest.update(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        for attribute, column in zip(self.attributes, self.labels.T, strict=True):
            digest.update(repr((attribute.name, attribute.values)).encode())
            digest.update(np.ascontiguousarray(column, dtype="<i8").data)
        return digest.hexdigest()


def _fraction(image: npt.NDArray[np.uint8]) -> float:
    """A number in [0, 1) that an image shares with its mirror image only."""
    sides = (np.ascontiguousarray(side).tobytes() for side in (image, image[:, ::-1]))
    digest = min(hashlib.blake2b(side, digest_size=8).digest() for side in sides)
    return int.from_bytes(digest, "little") / 2**64
