"""Groups of similar images, as labels of unlabelled data.

A GAN that is conditioned on groups learns faster and forgets fewer kinds of images than one without
labels (Liu et al. 2020, https://arxiv.org/abs/2006.10728). Groups of thumbnails need no network.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from service.core.manifest import Attribute
from training.data.dataset import Dataset
from training.errors import DataError

SIDE = 8
ROUNDS = 30
NAME = "group"

Rows = npt.NDArray[np.float64]


def clustered(dataset: Dataset, count: int) -> Dataset:
    """``dataset`` with one attribute, the group of each image, in place of its labels.

    k-means of thumbnails; at most ``count`` groups. An image and its mirror image are in the same
    group. Raises ``DataError`` for fewer than two images for each group, or without differences.
    """
    if len(dataset) < 2 * count:
        raise DataError(
            dataset.name,
            [f"{len(dataset)} images are too few for {count} groups: choose fewer clusters"],
        )
    labels = _k_means(_thumbnails(dataset.images), count)
    sizes = np.bincount(labels)
    if len(sizes) < 2:
        raise DataError(dataset.name, ["its images look alike: there are no groups of them"])
    values = tuple(f"{NAME} {index}" for index in range(len(sizes)))
    group = Attribute(name=NAME, values=values, frequencies=tuple(sizes / len(labels)))
    return replace(dataset, labels=labels[:, None], attributes=(group,))


def _thumbnails(images: npt.NDArray[np.uint8]) -> Rows:
    """Mean of each thumbnail and its mirror image, and how far they differ: ``[N, D]``."""
    count, height, width, channels = images.shape
    top, left = height % SIDE // 2, width % SIDE // 2
    height, width = height // SIDE, width // SIDE
    inner = images[:, top : top + SIDE * height, left : left + SIDE * width]
    cells = inner.reshape(count, SIDE, height, SIDE, width, channels)
    small = cells.sum(axis=(2, 4), dtype=np.int64) / (height * width)
    mirrored = small[:, :, ::-1]
    parts = [(small + mirrored)[:, :, : SIDE // 2], abs(small - mirrored)[:, :, : SIDE // 2]]
    return np.concatenate(parts, axis=2).reshape(count, -1)


def _k_means(rows: Rows, count: int) -> npt.NDArray[np.int64]:
    """Index of the nearest of ``count`` centres for each of ``rows``; groups are not empty."""
    centres = _spread_centres(rows, count)
    for _ in range(ROUNDS):
        nearest = _distances(rows, centres).argmin(axis=1)
        _, nearest = np.unique(nearest, return_inverse=True)  # an empty group is left out
        sizes = np.bincount(nearest)
        sums = np.zeros((len(sizes), rows.shape[1]))
        np.add.at(sums, nearest, rows)
        centres = sums / sizes[:, None]
    return nearest.astype(np.int64)


def _spread_centres(rows: Rows, count: int) -> Rows:
    """Rows far from each other (Arthur and Vassilvitskii 2007, k-means++)."""
    random = np.random.default_rng(0)
    chosen = [int(random.integers(len(rows)))]
    distances = _distances(rows, rows[chosen])[:, 0]
    for _ in range(count - 1):
        ends = distances.cumsum()
        chosen.append(min(int(np.searchsorted(ends, random.random() * ends[-1])), len(rows) - 1))
        distances = np.minimum(distances, _distances(rows, rows[chosen[-1:]])[:, 0])
    return rows[chosen]


def _distances(rows: Rows, centres: Rows) -> Rows:
    """Squared distances ``[N, K]``."""
    squares = (rows**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.maximum(squares - 2 * rows @ centres.T, 0)
