"""The one in-memory form that every data source gives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from service.manifest import Attribute
from training.errors import DataError


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

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, H, W, C], not {self.images.dtype}")
        if self.labels.shape != (len(self.images), len(self.attributes)):
            raise ValueError(
                f"labels of shape {self.labels.shape} do not fit {len(self.images)} images "
                f"and {len(self.attributes)} attributes"
            )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: npt.NDArray[np.bool_]) -> Dataset:
        """The images where ``rows [N]`` is true, under the same vocabulary."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def split(self, share: float) -> tuple[Dataset, Dataset]:
        """About ``1 - share`` of the images to train on, and the others to measure with.

        Which, follows from an image's pixels alone, whatever its orientation: copies and mirrored
        copies stay on one side, and a set that grows keeps its split.
        """
        held = np.array([_fraction(image) < share for image in self.images], dtype=np.bool_)
        return self.take(~held), self.take(held)

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


def encode_labels(
    columns: Mapping[str, Sequence[str]], source: str
) -> tuple[npt.NDArray[np.int64], tuple[Attribute, ...]]:
    """Turn one list of values per attribute into value indices ``[N, A]`` and the vocabulary.

    Values are put in natural order, so ``"10"`` follows ``"9"``. Raises ``DataError`` for names and
    values that cannot be labels.
    """
    indices: list[npt.NDArray[np.int64]] = []
    attributes: list[Attribute] = []
    problems: list[str] = []
    for name, column in columns.items():
        values = sorted(set(column), key=_natural)
        position = {value: index for index, value in enumerate(values)}
        index = np.array([position[value] for value in column], dtype=np.int64)
        counts = np.bincount(index, minlength=len(values))
        indices.append(index)
        try:
            frequencies = tuple(counts / counts.sum())
            attributes.append(Attribute(name=name, values=tuple(values), frequencies=frequencies))
        except ValidationError as error:
            problems += [f"attribute {name[:80]!r}: {fault['msg']}" for fault in error.errors()]
    if problems:
        raise DataError(source, problems)
    return np.stack(indices, axis=1), tuple(attributes)


def _natural(value: str) -> list[tuple[bool, int, str]]:
    parts = re.findall(r"\d+|\D+", value)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
