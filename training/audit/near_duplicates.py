"""Search for images that occur more than once: equal, mirrored or nearly so. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

NEAR = 10.0
"""Largest distance of near copies: root mean square difference of pixel values, of 255. Saving an
anime face as JPEG moves it by 2 (quality 95) to 9 (quality 50)."""
CONTRAST_SHARE = 0.25
"""Largest distance of near copies as a share of their contrast (standard deviation of pixels), so
that two pictures of fog are not near copies."""
GRID = 8
ROWS_AT_ONCE = 512
MAX_CANDIDATES = 64
"""Candidates that are compared with one image: enough, unless much of the data is one image."""


@dataclass(frozen=True)
class Pair:
    """Two images by index: both in the data, or the second in the other data."""

    first: int
    second: int
    mirrored: bool
    distance: float = 0.0
    """Root mean square difference of pixel values, 0 to 255."""


def exact(images: Images, others: Images | None = None) -> list[Pair]:
    """Find images that equal or mirror an earlier one, or images of ``others`` in ``images``.

    Each is listed once, as ``second``, with the first image that it repeats. Both arrays are
    ``[N, H, W, channels]``. Time grows with N.
    """
    within = others is None
    others = images if others is None else others
    first_of: dict[bytes, int] = {}
    sums, other_sums = _sums(images), _sums(others)
    # A mirrored image has the same sum, so only images with a repeated sum are compared.
    shared = _repeated(sums) if within else np.intersect1d(sums, other_sums)
    for index in np.flatnonzero(np.isin(sums, shared)):
        first_of.setdefault(_digest(images[index]), int(index))
    pairs = []
    for index in np.flatnonzero(np.isin(other_sums, shared)):
        same = first_of.get(_digest(others[index]))
        mirrored = first_of.get(_digest(others[index][:, ::-1]))
        for first, is_mirrored in ((same, False), (mirrored, True)):
            if first is not None and (first < index or not within):
                pairs.append(Pair(first, int(index), is_mirrored))
                break
    return pairs


def near(images: Images, others: Images | None = None) -> list[Pair]:
    """Find pairs that differ by more than 0 and at most ``NEAR``, so none that ``exact`` finds.

    Each image is listed once, as ``second``, with the most similar earlier image; or each of
    ``others`` with the most similar of ``images``. Time grows with the square of N. Only the limit
    ``MAX_CANDIDATES`` can hide a pair.
    """
    within = others is None
    others = images if others is None else others
    best: dict[int, Pair] = {}
    for first, second, mirrored in _candidates(images, others, within):
        if within and first > second:
            first, second = second, first
        pair = Pair(first, second, mirrored, _distance(images[first], others[second], mirrored))
        reach = min(NEAR, CONTRAST_SHARE * float(images[first].std()))
        if 0 < pair.distance <= reach:
            best[second] = min(best.get(second, pair), pair, key=lambda x: (x.distance, x.first))
    return sorted(best.values(), key=lambda pair: (pair.distance, pair.second))


def _candidates(images: Images, others: Images, within: bool) -> Iterator[tuple[int, int, bool]]:
    """Yield pairs (index, other index, mirrored) whose coarse images are within ``NEAR``.

    Averaging blocks of pixels never increases the distance of two images (Jensen's inequality), so
    the coarse images of near copies are near, and none is missed. The same holds for the mean of
    all pixels, by which images are sorted so that only neighbours are compared.
    """
    means, other_means = (_sums(x) / x[0].size for x in (images, others))
    order, other_order = np.argsort(means), np.argsort(other_means)
    means, other_means = means[order], other_means[other_order]
    coarse = _coarse(images)[order]
    for mirrored in (False, True):
        other_coarse = _coarse(others[:, :, ::-1] if mirrored else others)[other_order]
        for start in range(0, len(coarse), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(coarse))
            low = start if within else np.searchsorted(other_means, means[start] - NEAR)
            high = np.searchsorted(other_means, means[stop - 1] + NEAR, side="right")
            close = _close(coarse[start:stop], other_coarse[low:high])
            if within:
                close = np.triu(close, k=1)
            for row in np.flatnonzero(close.any(axis=1)):
                for column in np.flatnonzero(close[row])[:MAX_CANDIDATES]:
                    yield int(order[start + row]), int(other_order[low + column]), mirrored


def _coarse(images: Images) -> Floats:
    """Reduce images ``[N, H, W, channels]`` to rows ``[N, 64]`` with distances at most as large.

    The distance of images is their root mean square difference, that of rows Euclidean.
    """
    count, height, width, channels = images.shape
    rows, columns = min(GRID, height), min(GRID, width)
    tall, wide = height // rows, width // columns
    sums = np.empty((count, rows, columns), dtype=np.float32)
    for start in range(0, count, ROWS_AT_ONCE):
        # Leaving out pixels that do not fill a block never increases a distance.
        part = images[start : start + ROWS_AT_ONCE, : tall * rows, : wide * columns]
        blocks = part.reshape(len(part), rows, tall, columns, wide * channels)
        sums[start : start + len(part)] = blocks.sum(axis=2, dtype=np.uint32).sum(axis=-1)
    weight = np.sqrt(tall * wide * channels * height * width * channels)
    return (sums.reshape(count, -1) / weight).astype(np.float32)


def _close(coarse: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """Mask ``[N, M]`` of the rows of ``coarse [N, 64]`` and ``others [M, 64]`` within ``NEAR``."""
    squares, other_squares = (np.square(x).sum(axis=1) for x in (coarse, others))
    distances = squares[:, None] + other_squares - 2 * coarse @ others.T
    slack = 1e-5 * (squares.max() + NEAR**2)  # for rounding
    close: npt.NDArray[np.bool_] = distances <= NEAR**2 + slack
    return close


def _distance(one: Images, other: Images, mirrored: bool) -> float:
    difference = one.astype(np.float32) - (other[:, ::-1] if mirrored else other)
    return float(np.sqrt(np.square(difference).mean()))


def _digest(image: Images) -> bytes:
    return hashlib.sha1(np.ascontiguousarray(image).data, usedforsecurity=False).digest()


def _sums(images: Images) -> npt.NDArray[np.int64]:
    sums: npt.NDArray[np.int64] = images.reshape(len(images), -1).sum(axis=1, dtype=np.int64)
    return sums


def _repeated(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    unique, counts = np.unique(values, return_counts=True)
    return unique[counts > 1]
