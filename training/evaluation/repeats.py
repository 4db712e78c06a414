"""Error bars of distances: the same comparison with other samples.

Several sets of samples, not a bootstrap of one: resampled rows are copies, which raise every
distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from torch import Tensor

from service.core.manifest import Attribute
from training.core.device import CPU
from training.core.randomness import batch_indices
from training.data import Dataset
from training.evaluation.confidence import Estimate, estimate
from training.evaluation.images import Images, draw, rows_of
from training.evaluation.measure import SEED, Space, compare
from training.networks.marginal import Marginal
from training.networks.networks import Generator

SETS = 5
Spread = dict[str, Estimate]
"""Name of each field of a ``Comparison`` to its mean over the sets, and 95 % interval."""


def repeated(
    generator: Generator | Marginal,
    attributes: Sequence[Attribute],
    trained: Dataset,
    real: Images,
    space: Space,
) -> tuple[Spread, Spread]:
    """Compare five sets of samples, then of training images, with the held-out images ``real``.

    The first sets are those of the evaluation; the others are samples of other seeds, and other
    training images.
    """
    count, device = len(real), real.pixels.device
    features = space.embed(real.pixels)

    def samples() -> Iterator[Tensor]:
        for number in range(SETS):
            yield draw(generator, attributes, count, SEED + 100 * number).pixels

    def others() -> Iterator[Tensor]:
        for number in range(SETS):
            rows = batch_indices(0, len(trained), number * count, count, CPU).numpy()
            yield rows_of(trained, rows, device).pixels

    return _spread(features, samples(), space), _spread(features, others(), space)


def _spread(real: Tensor, sets: Iterator[Tensor], space: Space) -> Spread:
    compared = [compare(real, space.embed(images)) for images in sets]
    names = [field.name for field in fields(compared[0]) if field.name != "kernel_deviation"]
    return {name: estimate([getattr(each, name) for each in compared]) for name in names}
