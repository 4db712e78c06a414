"""Latents and drawn labels from (seed, index): recipe 1.

The latent of image ``index`` under ``seed`` depends on nothing but (seed, index, Z). Philox4x64-10
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") gives the bits: its *raw* output
is the same in every version of NumPy, and its counter can be set, so images 100..199 are drawn
without drawing 0..99. Bits become normals by algorithm AS 241 (Wichura 1988, function PPND7, about
7 digits) out of additions, multiplications, divisions and square roots only, which IEEE 754 rounds
alike everywhere; a library's logarithm would not do.

``docs/determinism.md`` gives the recipe with golden values.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.manifest import Attribute

RECIPE = 1
MAX_SEED = 2**53 - 1
MAX_INDEX = 2**53 - 1

_LATENTS = 0
_LABELS = 1
_WORDS_PER_COUNTER = 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class IndexRange:
    """Indices ``first .. first+count-1`` of a seed."""

    seed: int
    first: int
    count: int


class _PerThread(threading.local):
    """Bit generator of each thread. To set its state takes a tenth of the time of a new one."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.state = self.philox.state


_thread = _PerThread()


def draw_seed() -> int:
    """Random seed for a request that has none, 0 to ``MAX_SEED``."""
    return random.randint(0, MAX_SEED)


def latents(seed: int, first: int, count: int, size: int) -> npt.NDArray[np.float32]:
    """Latents of the images ``first .. first+count-1``: standard normal, ``[count, size]``."""
    return latents_of([IndexRange(seed, first, count)], size)


def latents_of(ranges: Sequence[IndexRange], size: int) -> npt.NDArray[np.float32]:
    """Latents of several ranges, concatenated: ``[sum of counts, size]``.

    One call takes a fraction of the time of a call for each range.
    """
    return _normal(_uniform(ranges, _LATENTS, size)).astype(np.float32)


def draw_labels(
    seed: int, first: int, count: int, attributes: Sequence[Attribute]
) -> npt.NDArray[np.int64]:
    """Labels of the images ``first .. first+count-1``, drawn from the attributes' frequencies.

    Returns value indices ``[count, A]``. Each attribute has its own random number, so a change to
    one attribute does not change the others.
    """
    return draw_labels_of([IndexRange(seed, first, count)], attributes)


def draw_labels_of(
    ranges: Sequence[IndexRange], attributes: Sequence[Attribute]
) -> npt.NDArray[np.int64]:
    """Labels of several ranges, concatenated: ``[sum of counts, A]``."""
    if not attributes:
        return np.zeros((sum(each.count for each in ranges), 0), dtype=np.int64)
    uniform = _uniform(ranges, _LABELS, len(attributes))
    columns = []
    for number, attribute in zip(uniform.T, attributes, strict=True):
        edges = np.cumsum(attribute.frequencies)
        value = np.searchsorted(edges[:-1], number * edges[-1], side="right")
        columns.append(value.astype(np.int64))
    return np.stack(columns, axis=1)


def _uniform(ranges: Sequence[IndexRange], stream: int, size: int) -> Floats:
    """Numbers strictly between 0 and 1, multiples of 2^-53, of shape ``[images, size]``.

    Image ``i`` owns the counters from ``i * ceil(size / 4)``; each gives four 64-bit words.
    """
    if not ranges:
        return np.empty((0, size))
    counters = -(-size // _WORDS_PER_COUNTER)
    width = counters * _WORDS_PER_COUNTER
    philox, state = _thread.philox, _thread.state
    blocks = []
    for each in ranges:
        high, low = divmod(each.first * counters, 2**64)
        state["state"]["key"][:] = each.seed, stream
        state["state"]["counter"][:] = low, high, 0, 0
        philox.state = state
        blocks.append(philox.random_raw(each.count * width).reshape(-1, width))
    words = np.concatenate(blocks)[:, :size]
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _normal(p: Floats) -> Floats:
    """Standard normal quantile: Wichura 1988, AS 241, PPND7."""
    q = p - 0.5
    r = 0.180625 - q * q
    z: Floats = (
        q
        * (((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179)
        / (((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1.0)
    )
    tail = np.abs(q) > 0.425
    z[tail] = np.copysign(_normal_tail(np.minimum(p[tail], 1.0 - p[tail])), q[tail])
    return z


def _normal_tail(p: Floats) -> Floats:
    """Absolute value of the quantile for p below 0.075."""
    root = np.sqrt(-_log(p))
    r = root - 1.6
    near = (((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) / (
        (0.12021132975 * r + 0.73700164250) * r + 1.0
    )
    r = root - 5.0
    far = (((0.017337203997 * r + 0.42868294337) * r + 3.0812263860) * r + 6.6579051150) / (
        (0.012258202635 * r + 0.24197894225) * r + 1.0
    )
    return np.where(root <= 5.0, near, far)


def _log(x: Floats) -> Floats:
    """Natural logarithm by the series of atanh, to about 1e-15, equal on every platform."""
    mantissa, exponent = np.frexp(x)  # x = mantissa * 2^exponent, mantissa in [1/2, 1)
    s = (mantissa - 0.75) / (mantissa + 0.75)  # |s| <= 1/5
    square = s * s
    series = np.zeros_like(s)
    for power in range(21, 0, -2):  # atanh(s) = s + s^3/3 + s^5/5 ...
        series = series * square + 1.0 / power
    return 2.0 * s * series + (exponent * 0.6931471805599453 - 0.2876820724517809)
